"""How many samples were forgotten how often."""

import numpy as np

from ..dynamics import ForgettingEvents
from ._drawing import BLUE, VERMILION, axes_for, vector


class ForgettingDisplay:
    """Histogram of forgetting events, with the samples that were never learned apart.

    Parameters
    ----------
    forgetting_counts : ndarray of shape (n_samples,), int
        Events of each sample.
    never_learned : ndarray of shape (n_samples,), bool
        Samples that were never right.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    sklearn_lpntk.dynamics.ForgettingEvents : Records what is drawn.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn_lpntk.inspection import ForgettingDisplay
    >>> display = ForgettingDisplay.from_predictions([0, 0, 1, 3], [False, True, False, False])
    >>> display.forgetting_counts.max()
    np.int64(3)
    """

    def __init__(self, *, forgetting_counts, never_learned):
        self.forgetting_counts, self.never_learned = forgetting_counts, never_learned

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, **bar_kw):
        """What a net's callback recorded during its fit.

        Parameters
        ----------
        estimator : fitted skorch net or callback
            A net with ``ForgettingEvents`` or ``TrainingDynamics`` among its callbacks, or that
            callback itself.
        ax : matplotlib Axes, default=None
            Where it is drawn; None means new ones.
        **bar_kw
            As for `plot`.

        Returns
        -------
        display : ForgettingDisplay
        """
        callbacks = [estimator, *(c for _, c in getattr(estimator, "callbacks_", []))]
        recorded = [c for c in callbacks if isinstance(c, ForgettingEvents)]
        if not recorded:
            raise ValueError(
                f"This {type(estimator).__name__} has recorded no forgetting events: fit it with "
                "callbacks=[ForgettingEvents()] or [TrainingDynamics()]."
            )
        found = recorded[0]
        return cls.from_predictions(found.forgetting_counts_, found.never_learned_, ax=ax, **bar_kw)

    @classmethod
    def from_predictions(cls, forgetting_counts, never_learned=None, *, ax=None, **bar_kw):
        """Draw given counts.

        Parameters
        ----------
        forgetting_counts : array-like of shape (n_samples,), int
            How many times each sample was forgotten.
        never_learned : array-like of shape (n_samples,), bool, default=None
            None means that every sample was.
        ax : matplotlib Axes, default=None
            Where it is drawn; None means new ones.
        **bar_kw
            As for `plot`.

        Returns
        -------
        display : ForgettingDisplay
        """
        counts = vector(forgetting_counts, "forgetting_counts")
        if counts.dtype.kind not in "iu" or not len(counts) or counts.min() < 0:
            raise ValueError("forgetting_counts must hold one count of 0 or more a sample.")
        if never_learned is None:
            never_learned = np.zeros(len(counts), dtype=bool)
        never = vector(never_learned, "never_learned", len(counts)).astype(bool)
        return cls(forgetting_counts=counts, never_learned=never).plot(ax, **bar_kw)

    def plot(self, ax=None, **bar_kw):
        """Draw the histogram.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            New ones if None.
        **bar_kw
            For matplotlib's ``bar``.

        Returns
        -------
        display : ForgettingDisplay
        """
        ax = axes_for(ax, type(self).__name__)
        counts = np.bincount(self.forgetting_counts[~self.never_learned], minlength=1)
        style = {"color": BLUE} | bar_kw
        ax.bar(np.arange(len(counts)), counts, **style)
        ticks, labels = list(range(0, len(counts), 1 + len(counts) // 12)), None
        n_never = int(self.never_learned.sum())
        if n_never:
            ax.bar([len(counts) + 1], [n_never], **style | {"color": VERMILION})
            labels = [*map(str, ticks), "never\nlearned"]
            ticks.append(len(counts) + 1)
        ax.set_xticks(ticks, labels)
        once = (self.forgetting_counts > 0).mean()
        ax.set(
            yscale="log",
            xlabel="forgetting events of a sample",
            ylabel="samples",
            title=f"Forgetting: {once:.0%} of {len(self.forgetting_counts)} samples at least once",
        )
        ax.set_ylim(bottom=0.7)  # a single sample is seen
        self.ax_, self.figure_ = ax, ax.figure
        return self
