"""How answers of a language model move, and what tokens do to tokens."""

import numpy as np

from ._drawing import (
    BLACK,
    BLUE,
    COLORS,
    GREEN,
    GREY,
    MARKERS,
    MOST_TICKS,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    axes_for,
    legend_beside,
    vector,
)

# one colour per meaning, in every picture
ANSWERS = {
    "chosen": BLUE,
    "rejected": VERMILION,
    "rephrased": SKY,
    "other": ORANGE,
    "permuted": GREY,
    "argmax": PURPLE,
    "likeliest": GREEN,
    "probes": BLACK,
}


class ResponseDynamicsDisplay:
    """Log-probabilities of answers in the course of fine-tuning.

    Parameters
    ----------
    steps : ndarray of shape (n_records,), int
        Optimiser steps.
    log_proba : dict of str to ndarray of shape (n_records,)
        Of each kind of answer, the mean over its answers (nats).
    relative : bool, default=True
        Draw changes since the first record.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D

    See Also
    --------
    sklearn_lpntk.language.trl.ResponseProbe : Records what is drawn.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn_lpntk.inspection import ResponseDynamicsDisplay
    >>> values = {"chosen": [-9.0, -8.5, -9.5], "rejected": [-10.0, -14.0, -20.0]}
    >>> display = ResponseDynamicsDisplay.from_predictions([0, 10, 20], values)
    >>> display.ax_.get_ylabel()
    'change of log-probability (nats)'
    """

    def __init__(self, *, steps, log_proba, relative=True):
        self.steps, self.log_proba, self.relative = steps, log_proba, relative

    @classmethod
    def from_probe(cls, probe, *, relative=True, ax=None, **line_kw):
        """What a callback recorded.

        Parameters
        ----------
        probe : ResponseProbe
            After training.
        relative : bool, default=True
            Draw changes since the first record.
        ax : matplotlib Axes, default=None
            Where it is drawn; None means new ones.
        **line_kw
            As for `plot`.

        Returns
        -------
        display : ResponseDynamicsDisplay
        """
        records = getattr(probe, "records", None)
        if not records:
            raise ValueError(
                f"This {type(probe).__name__} has no records: pass a ResponseProbe that was among "
                "a trainer's callbacks, after its train()."
            )
        steps = [record.step for record in records]
        names = records[0].log_proba
        values = {name: [float(r.log_proba[name].mean()) for r in records] for name in names}
        return cls.from_predictions(steps, values, relative=relative, ax=ax, **line_kw)

    @classmethod
    def from_predictions(cls, steps, log_proba, *, relative=True, ax=None, **line_kw):
        """Draw given numbers.

        Parameters
        ----------
        steps : array-like of shape (n_records,)
            Optimiser steps.
        log_proba : dict of str to array-like of shape (n_records,)
            Of each kind of answer, the mean log-probability (nats).
        relative : bool, default=True
            Draw changes since the first record.
        ax : matplotlib Axes, default=None
            Where it is drawn; None means new ones.
        **line_kw
            As for `plot`.

        Returns
        -------
        display : ResponseDynamicsDisplay
        """
        steps = vector(steps, "steps")
        if not hasattr(log_proba, "items") or not log_proba or not len(steps):
            raise ValueError("log_proba must be a dict of names to one number for each step.")
        values = {k: vector(v, f"log_proba[{k!r}]", len(steps)) for k, v in log_proba.items()}
        return cls(steps=steps, log_proba=values, relative=relative).plot(ax, **line_kw)

    def plot(self, ax=None, **line_kw):
        """Draw a line for each kind of answer.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            New ones if None.
        **line_kw
            For matplotlib's ``plot``.

        Returns
        -------
        display : ResponseDynamicsDisplay
        """
        ax = axes_for(ax, type(self).__name__)
        self.lines_ = []
        for k, (name, values) in enumerate(self.log_proba.items()):
            color = ANSWERS.get(name, COLORS[k % len(COLORS)])
            style = {"color": color, "marker": MARKERS[k % len(MARKERS)], "ms": 4} | line_kw
            shown = values - values[0] if self.relative else values
            self.lines_ += ax.plot(self.steps, shown, label=name, **style)
        if self.relative:
            ax.axhline(0, color="0.6", lw=0.8, zorder=0)
        what = "change of log-probability" if self.relative else "log-probability"
        ax.set(xlabel="optimiser step", ylabel=f"{what} (nats)")
        legend_beside(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self


class TokenInfluenceDisplay:
    """Heat map of what a step on each token does to each other.

    Parameters
    ----------
    matrix : ndarray of shape (n_observed, n_update)
        Changes of log-probability by a step of rate 1 (nats).
    observed, update : list of str
        Names of the tokens.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    im_ : matplotlib AxesImage

    See Also
    --------
    sklearn_lpntk.language.token_influence : Computes what is drawn.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn_lpntk.inspection import TokenInfluenceDisplay
    >>> display = TokenInfluenceDisplay.from_predictions([[2.0, -1.0]], ["Paris"], ["Paris", "."])
    >>> display.ax_.get_xlabel()
    'token of the step'
    """

    def __init__(self, *, matrix, observed, update):
        self.matrix, self.observed, self.update = matrix, observed, update

    @classmethod
    def from_influence(cls, influence, tokenizer=None, *, ax=None, **im_kw):
        """What :func:`~sklearn_lpntk.language.token_influence` returned.

        Parameters
        ----------
        influence : Bunch
            With ``matrix`` and ``tokens``.
        tokenizer : tokenizer of transformers, default=None
            Turns ids into words. None shows the ids.
        ax : matplotlib Axes, default=None
            Where it is drawn; None means new ones.
        **im_kw
            As for `plot`.

        Returns
        -------
        display : TokenInfluenceDisplay
        """
        decode = str if tokenizer is None else lambda i: tokenizer.decode([int(i)])
        names = [[decode(i) for i in influence.tokens[side]] for side in ("observed", "update")]
        return cls.from_predictions(influence.matrix, *names, ax=ax, **im_kw)

    @classmethod
    def from_predictions(cls, values, observed, update, *, ax=None, **im_kw):
        """Draw a given matrix.

        Parameters
        ----------
        values : array-like of shape (n_observed, n_update)
            Changes of log-probability by a step of rate 1 (nats).
        observed, update : sequence of str
            Names of the tokens.
        ax : matplotlib Axes, default=None
            Where it is drawn; None means new ones.
        **im_kw
            As for `plot`.

        Returns
        -------
        display : TokenInfluenceDisplay
        """
        values = np.asarray(values)
        shape = len(observed), len(update)
        if values.shape != shape or not values.size:
            raise ValueError(
                f"The matrix must have a row for each of {shape[0]} observed tokens and a column "
                f"for each of {shape[1]} of the step; got shape {values.shape}."
            )
        names = list(map(str, observed)), list(map(str, update))
        return cls(matrix=values, observed=names[0], update=names[1]).plot(ax, **im_kw)

    def plot(self, ax=None, **im_kw):
        """Draw the heat map.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            New ones if None.
        **im_kw
            For matplotlib's ``imshow``.

        Returns
        -------
        display : TokenInfluenceDisplay
        """
        ax = axes_for(ax, type(self).__name__)
        sizes = np.abs(self.matrix)
        limit = (
            float(np.quantile(sizes, 0.98) or sizes.max()) or 1.0
        )  # few are far above all others
        style = {"cmap": "RdBu", "vmin": -limit, "vmax": limit, "aspect": "auto"} | im_kw
        self.im_ = ax.imshow(self.matrix, **style)
        for axis, names in (("x", self.update), ("y", self.observed)):
            step = -(-len(names) // MOST_TICKS)
            options = {"rotation": 90} if axis == "x" else {}
            shown = [name.replace("$", r"\$") for name in names[::step]]
            getattr(ax, f"set_{axis}ticks")(range(0, len(names), step), shown, **options)
        ax.set(xlabel="token of the step", ylabel="token observed")
        label = "change of log-probability at rate 1 (nats)"
        ax.figure.colorbar(self.im_, ax=ax, label=label, extend="both")
        self.ax_, self.figure_ = ax, ax.figure
        return self
