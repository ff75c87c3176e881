"""Accuracy against the pruned fraction, one line a strategy."""

import numpy as np
from sklearn.base import clone
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV, check_cv

from .._runtime.progress import report, shown
from .._samples.given import require_indexable
from ..pruning import RedundancyPruner
from ..pruning._comparison import names_of
from ._drawing import GREY, axes_for, legend_beside, strategy_style


class PruningCurveDisplay:
    """Score against the fraction of pruned samples, by strategy, with bands.

    Parameters
    ----------
    fractions : ndarray of shape (n_fractions,)
        Pruned fractions, rising.
    scores : dict of str to ndarray of shape (n_fractions, n_repeats)
        Scores by strategy.
    full_scores : ndarray of shape (n_repeats,), default=None
        Without pruning.
    score_name : str, default="score"
        Title of the vertical axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_lpntk import RedundancyPruner
    >>> from sklearn_lpntk.inspection import PruningCurveDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> pruner = RedundancyPruner(LogisticRegression(max_iter=1000), random_state=0)
    >>> display = PruningCurveDisplay.from_estimator(
    ...     pruner, X, y, strategies=["random", "k_center_input"], fractions=[0.5, 0.9], cv=3
    ... )
    >>> display.scores["random"].shape
    (2, 3)
    """

    def __init__(self, *, fractions, scores, full_scores=None, score_name="score"):
        self.fractions, self.scores = fractions, scores
        self.full_scores, self.score_name = full_scores, score_name

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        strategies=("herding", "coverage", "random", "el2n"),
        fractions=(0.2, 0.5, 0.8, 0.9, 0.95),
        cv=None,
        scoring=None,
        n_jobs=None,
        budget=None,
        memory=None,
        verbose=0,
        ax=None,
        band="se",
        **line_kw,
    ):
        """Cross-validate a pruner over strategies and fractions.

        Parameters
        ----------
        estimator : RedundancyPruner, or Pipeline with one as a step
            Give it ``memory=`` and an int ``random_state``, and the scoring net is trained once a
            fold.
        X, y : arrays of shape (n_samples, ...) and (n_samples,)
            Samples that cross-validation can take rows of, and their labels.
        strategies : sequence, default=("herding", "coverage", "random", "el2n")
            One line each: names, functions, or lists, as ``RedundancyPruner`` takes them.
        fractions : sequence of float, default=(0.2, 0.5, 0.8, 0.9, 0.95)
            Pruned fractions.
        cv, scoring, n_jobs
            As in :class:`~sklearn.model_selection.GridSearchCV`.
        budget : {"epochs", "steps"}, default=None
            How long a skorch net is retrained, as in ``RedundancyPruner``; None leaves it as it is.
        memory : str or joblib.Memory, default=None
            As in ``RedundancyPruner``; None leaves it as it is.
        verbose : int, default=0
            Print how many fits are done, and the remaining time; not with ``n_jobs``.
        ax : matplotlib Axes, default=None
            Where it is drawn; None means new ones.
        band : {"se", "sd"} or None, default="se"
        **line_kw
            As for `plot`.

        Returns
        -------
        display : PruningCurveDisplay
        """
        require_indexable(X)
        prefix = _pruner_prefix(estimator)
        strategy, fraction = f"{prefix}strategy", f"{prefix}prune_fraction"
        grid = [
            {strategy: ["random"], fraction: [0.0]},
            {strategy: list(strategies), fraction: sorted(fractions)},
        ]
        estimator = clone(estimator)
        for name, value in (("budget", budget), ("memory", memory)):
            if value is not None:
                estimator.set_params(**{prefix + name: value})
        cv = check_cv(cv, y, classifier=True)
        n_fits = cv.get_n_splits(X, y) * (1 + len(strategies) * len(fractions))
        counted = _Counted(check_scoring(estimator, scoring), n_fits)
        search = GridSearchCV(estimator, grid, cv=cv, scoring=counted, n_jobs=n_jobs, refit=False)
        with shown("[PruningCurveDisplay] cross-validate", verbose=verbose):
            search.fit(X, y)
        full_scores, rows = _scores_of(search, list(strategies), strategy, fraction)
        names = enumerate(names_of(strategies))
        return cls.from_predictions(
            sorted(fractions),
            {name: np.array([rows[k, f] for f in sorted(fractions)]) for k, name in names},
            full_scores=full_scores,
            score_name="accuracy" if scoring is None else str(scoring),
            ax=ax,
            band=band,
            **line_kw,
        )

    @classmethod
    def from_predictions(
        cls,
        fractions,
        scores,
        *,
        full_scores=None,
        score_name="score",
        ax=None,
        band="se",
        **line_kw,
    ):
        """Draw given scores.

        Parameters
        ----------
        fractions : array-like of shape (n_fractions,)
            Pruned fractions.
        scores : dict of str to array-like of shape (n_fractions, n_repeats)
            By strategy; nan where there is none.
        full_scores : array-like of shape (n_repeats,), default=None
            Without pruning.
        score_name : str, default="score"
            Title of the vertical axis.
        ax : matplotlib Axes, default=None
            Where it is drawn; None means new ones.
        band : {"se", "sd"} or None, default="se"
        **line_kw
            As for `plot`.

        Returns
        -------
        display : PruningCurveDisplay
        """
        fractions = np.asarray(fractions, dtype=float)
        scores = {name: np.asarray(values, dtype=float) for name, values in scores.items()}
        for name, values in scores.items():
            if values.ndim != 2 or len(values) != len(fractions):
                raise ValueError(
                    f"scores[{name!r}] must have shape ({len(fractions)}, n_repeats), a row for "
                    f"each fraction; got {values.shape}."
                )
        order = np.argsort(fractions)
        display = cls(
            fractions=fractions[order],
            scores={name: values[order] for name, values in scores.items()},
            full_scores=None if full_scores is None else np.asarray(full_scores, dtype=float),
            score_name=score_name,
        )
        return display.plot(ax, band=band, **line_kw)

    def plot(self, ax=None, *, band="se", **line_kw):
        """Draw one line a strategy; those of the controls are dashed.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            New ones if None.
        band : {"se", "sd"} or None, default="se"
            Around each line: a standard error of the mean, a standard deviation, or nothing.
        **line_kw
            For all lines, as in matplotlib's ``plot``.

        Returns
        -------
        display : PruningCurveDisplay
        """
        if band not in ("se", "sd", None):
            raise ValueError(f"band must be 'se', 'sd' or None; got {band!r}.")
        ax = axes_for(ax, type(self).__name__, figsize=(7, 4.5))
        x = 100 * self.fractions
        if self.full_scores is not None:
            ax.axhline(np.mean(self.full_scores), color=GREY, lw=1.5, ls=":", label="all samples")
        for k, (name, values) in enumerate(self.scores.items()):
            style = strategy_style(name, k) | {"ms": 5} | line_kw
            mean, deviation, n = _spread(values)
            (line,) = ax.plot(x, mean, label=name, **style)
            if band is not None:
                width = deviation / np.sqrt(n) if band == "se" else deviation
                color = line.get_color()
                ax.fill_between(x, mean - width, mean + width, color=color, alpha=0.15, lw=0)
        n_repeats = max(values.shape[1] for values in self.scores.values())
        what = {"se": ", bands: ± 1 standard error", "sd": ", bands: ± 1 standard deviation"}
        ax.set(
            xlabel="training samples that were pruned (%)",
            ylabel=self.score_name,
            title=f"Pruning, {n_repeats} repeats{what.get(band, '') if n_repeats > 1 else ''}",
        )
        legend_beside(ax, title="dashed: controls")
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _scores_of(search, strategies, strategy, fraction):
    """Scores without pruning, and those of the k-th strategy at a fraction: one a split."""
    results = search.cv_results_
    splits = [results[f"split{k}_test_score"] for k in range(search.n_splits_)]
    full_scores, *others = np.stack(splits, axis=1)
    number = {id(s): k for k, s in enumerate(strategies)}
    keys = [(number[id(p[strategy])], p[fraction]) for p in results["params"][1:]]
    return full_scores, dict(zip(keys, others, strict=True))


class _Counted:
    """A scorer that reports how many times it was called."""

    def __init__(self, scorer, n_fits):
        self.scorer, self.n_fits, self.done = scorer, n_fits, 0

    def __call__(self, estimator, X, y):
        score = self.scorer(estimator, X, y)
        self.done += 1
        report(self.done, self.n_fits, "fits")
        return score


def _spread(values):
    """Mean, standard deviation and number of each row's values; nan where there is none."""
    there = ~np.isnan(values)
    n = there.sum(axis=1)
    total = np.where(there, values, 0).sum(axis=1)
    mean = np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)
    squares = (np.where(there, values - mean[:, None], 0) ** 2).sum(axis=1)
    variance = np.divide(squares, n - 1, out=np.full(len(n), np.nan), where=n > 1)
    return mean, np.sqrt(variance), np.maximum(n, 1)


def _pruner_prefix(estimator):
    """What a grid puts before the pruner's parameters."""
    if isinstance(estimator, RedundancyPruner):
        return ""
    for name, step in getattr(estimator, "steps", []):
        if isinstance(step, RedundancyPruner):
            return f"{name}__"
    raise TypeError(
        "estimator must be a RedundancyPruner or a Pipeline with one as a step; got "
        f"{type(estimator).__name__}."
    )
