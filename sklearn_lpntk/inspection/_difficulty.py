"""Difficulty in one setting against difficulty in another."""

import numpy as np
from scipy.stats import pearsonr

from .._runtime.progress import shown
from ..dynamics import difficulty_correlation
from ._drawing import MOST_IN_LEGEND, axes_for, class_style, legend_beside, vector


class DifficultyDisplay:
    """Scatter of the difficulty of samples in two settings, with their correlation.

    Parameters
    ----------
    difficulty : ndarray of shape (n_samples,)
        On the horizontal axis, in nats times epochs.
    other : ndarray of shape (n_samples,)
        On the vertical axis.
    y : ndarray of shape (n_samples,), default=None
        Classes, for the colours.
    names : tuple of str, default=("all samples", "subsets")
        What the axes are called.

    Attributes
    ----------
    correlation : float
        Pearson's.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    sklearn_lpntk.dynamics.difficulty_correlation : What `from_estimator` draws.
    sklearn_lpntk.dynamics.LearningDifficulty : Records difficulty during a fit.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn_lpntk.inspection import DifficultyDisplay
    >>> display = DifficultyDisplay.from_predictions([1.0, 2.0, 3.0], [2.0, 4.5, 6.0])
    >>> round(float(display.correlation), 3)
    0.99
    """

    def __init__(self, *, difficulty, other, y=None, names=("all samples", "subsets")):
        self.difficulty, self.other, self.y, self.names = difficulty, other, y, names

    @property
    def correlation(self):
        return pearsonr(self.difficulty, self.other).statistic

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        subset_size=1,
        n_epochs=100,
        learning_rate=0.1,
        random_state=None,
        verbose=0,
        ax=None,
        **scatter_kw,
    ):
        """Train copies of a network on all samples and on subsets of them.

        Parameters
        ----------
        estimator : nn.Module or skorch net
            Its present weights are the initial ones.
        X, y, n_epochs, learning_rate, random_state
            As in :func:`~sklearn_lpntk.dynamics.difficulty_correlation`.
        subset_size : int, default=1
            Samples that are trained on together.
        verbose : int, default=0
            Print how many networks are trained, and the remaining time.
        ax : matplotlib Axes, default=None
            Where it is drawn; None means new ones.
        **scatter_kw
            As for `plot`.

        Returns
        -------
        display : DifficultyDisplay
        """
        with shown("[DifficultyDisplay] train on subsets", verbose=verbose):
            found = difficulty_correlation(
                estimator,
                X,
                y,
                subset_sizes=[subset_size],
                n_epochs=n_epochs,
                learning_rate=learning_rate,
                random_state=random_state,
            )
        names = f"among {len(found.difficulty)} samples", f"among {subset_size}"
        return cls.from_predictions(
            found.difficulty, found.subset_difficulty[0], y=y, names=names, ax=ax, **scatter_kw
        )

    @classmethod
    def from_predictions(
        cls, difficulty, other, *, y=None, names=("all samples", "subsets"), ax=None, **scatter_kw
    ):
        """Draw given difficulties; samples without one (nan) are left out.

        Parameters
        ----------
        difficulty, other : array-like of shape (n_samples,)
            Of each sample, on the horizontal and on the vertical axis.
        y : array-like of shape (n_samples,), default=None
            Their labels.
        names : tuple of str, default=("all samples", "subsets")
            What both are, for the titles of the axes.
        ax : matplotlib Axes, default=None
            Where it is drawn; None means new ones.
        **scatter_kw
            As for `plot`.

        Returns
        -------
        display : DifficultyDisplay
        """
        difficulty = vector(difficulty, "difficulty").astype(float)
        other = vector(other, "other", len(difficulty)).astype(float)
        y = None if y is None else vector(y, "y", len(difficulty))
        both = ~(np.isnan(difficulty) | np.isnan(other))
        if both.sum() < 2:
            raise ValueError(f"Only {both.sum()} samples have both difficulties; two are needed.")
        y = None if y is None else y[both]
        display = cls(difficulty=difficulty[both], other=other[both], y=y, names=names)
        return display.plot(ax, **scatter_kw)

    def plot(self, ax=None, **scatter_kw):
        """Draw one difficulty against the other.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            New ones if None.
        **scatter_kw
            For matplotlib's ``scatter``.

        Returns
        -------
        display : DifficultyDisplay
        """
        ax = axes_for(ax, type(self).__name__)
        style = {"s": 8, "alpha": 0.5, "linewidths": 0} | scatter_kw
        groups = [None] if self.y is None else np.unique(self.y)
        for k, group in enumerate(groups):
            rows = slice(None) if group is None else self.y == group
            own = class_style(k)
            if {"color", "c"} & set(style):
                del own["color"]
            label = None if group is None else str(group)
            x, y = self.difficulty[rows], self.other[rows]
            ax.scatter(x, y, label=label, **own | style)
            if len(groups) > MOST_IN_LEGEND:  # their names stand where they are
                ax.annotate(label, (np.median(x), np.median(y)), fontsize=6, ha="center")
        if self.y is not None and len(groups) <= MOST_IN_LEGEND:
            legend_beside(ax, title="class", markerscale=2)
        ax.set(
            xlabel=f"summed loss over training, {self.names[0]} (nats × epochs)",
            ylabel=f"summed loss over training, {self.names[1]} (nats × epochs)",
            title=f"Learning difficulty, ρ = {self.correlation:.2f}",
        )
        self.ax_, self.figure_ = ax, ax.figure
        return self
