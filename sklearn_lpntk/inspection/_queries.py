"""Accuracy by the number of labels, for strategies that ask for them."""

from collections.abc import Mapping

import numpy as np

from ._drawing import BLACK, COLORS, MARKERS, axes_for, legend_beside

OTHERS = tuple(color for color in COLORS if color != BLACK)


class QueryCurveDisplay:
    """Learning curves of query strategies, with bands.

    Parameters
    ----------
    n_labels : ndarray of shape (n_points,)
        Labels that had been asked for.
    scores : dict of name -> ndarray of shape (n_runs, n_points)
        Scores of every strategy, a row for each run.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    sklearn_lpntk.active.LookaheadQuery : One of the strategies.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn_lpntk.inspection import QueryCurveDisplay
    >>> results = {"random": [[0.5, 0.6], [0.5, 0.7]], "margin": [[0.5, 0.7], [0.5, 0.8]]}
    >>> display = QueryCurveDisplay.from_results([20, 30], results)
    >>> display.scores["margin"].mean(axis=0)
    array([0.5 , 0.75])
    """

    def __init__(self, *, n_labels, scores):
        self.n_labels, self.scores = n_labels, scores

    @classmethod
    def from_results(cls, n_labels, results, *, ax=None, **line_kw):
        """Draw scores of some runs.

        Parameters
        ----------
        n_labels : array-like of shape (n_points,)
            Labels that had been asked for.
        results : dict of name -> array-like of shape (n_runs, n_points) or (n_points,)
            Scores of every strategy. One called "random" is drawn as the control.
        ax : matplotlib Axes, default=None
            Where it is drawn; None means new ones.
        **line_kw
            As for `plot`.

        Returns
        -------
        display : QueryCurveDisplay
        """
        n_labels = np.asarray(n_labels)
        if not isinstance(results, Mapping) or not results:
            raise ValueError("results must be a dict with the scores of at least one strategy.")
        try:
            scores = {name: np.atleast_2d(np.asarray(v, float)) for name, v in results.items()}
        except (TypeError, ValueError) as error:
            raise ValueError(f"results must hold numbers, as many in every run: {error}") from error
        for name, values in scores.items():
            if n_labels.ndim != 1 or values.ndim != 2 or values.shape[1] != len(n_labels):
                raise ValueError(
                    f"results[{name!r}] must have shape (n_runs, {n_labels.size}), a score for "
                    f"each of n_labels; got {values.shape}."
                )
        return cls(n_labels=n_labels, scores=scores).plot(ax, **line_kw)

    def plot(self, ax=None, **line_kw):
        """Draw means, and bands of one standard error of the mean.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            New ones if None.
        **line_kw
            For matplotlib's ``plot``.

        Returns
        -------
        display : QueryCurveDisplay
        """
        ax = axes_for(ax, type(self).__name__, figsize=(8, 4.5))
        others = [name for name in self.scores if name != "random"]
        for name, values in self.scores.items():
            k = others.index(name) if name in others else 0
            control = name == "random"
            style = {
                "color": BLACK if control else OTHERS[k % len(OTHERS)],
                "marker": MARKERS[k % len(MARKERS)],
                "ls": "--" if control else "-",
                "ms": 4,
                "label": name,
            }
            mean = values.mean(0)
            ax.plot(self.n_labels, mean, **style | line_kw)
            if len(values) > 1:
                error = values.std(0, ddof=1) / len(values) ** 0.5
                ax.fill_between(
                    self.n_labels,
                    mean - error,
                    mean + error,
                    color=style["color"],
                    alpha=0.12,
                    lw=0,
                )
        n_runs = {len(values) for values in self.scores.values()}
        runs = f"{min(n_runs)} runs" if len(n_runs) == 1 else f"{min(n_runs)} to {max(n_runs)} runs"
        band = "; bands: one standard error" if max(n_runs) > 1 else ""
        ax.set(xlabel="labels", ylabel="accuracy", title=f"What labels are worth, {runs}{band}")
        legend_beside(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self
