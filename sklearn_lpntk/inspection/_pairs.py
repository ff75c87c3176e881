"""Pairs of samples as images: who stands in for whom, and who fights whom."""

from numbers import Integral

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .._samples.given import n_samples_of
from .._skorch.scoring import as_scored
from ..kernels import empirical_ntk
from ._drawing import draw_table, grid_for, samples_at, vector

KINDS = ("redundant", "stand_in", "contradictory")


class SamplePairsDisplay:
    """Pairs of images, one above the other, or of rows of a table.

    Parameters
    ----------
    images : ndarray of shape (n_pairs, 2, height, width) or (n_pairs, 2, height, width, 3), or None
        The samples, if they are images.
    captions : list of (str, str)
        Above each image.
    rows : (str, str)
        What the upper and the lower images are.
    title : str
        Title of the picture.
    table : (list of str, list of list of str), default=None
        Names and cells of samples that are rows of a table, in place of images.

    Attributes
    ----------
    axes_ : ndarray of shape (2, n_pairs) of matplotlib Axes, or (1, 1) for a table
    figure_ : matplotlib Figure

    See Also
    --------
    sklearn_lpntk.RedundancyPruner : Finds dominators.
    sklearn_lpntk.dynamics.train_test_similarity : Finds partners of test samples.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn_lpntk.datasets import load_digit_images
    >>> from sklearn_lpntk.inspection import SamplePairsDisplay
    >>> X, y = load_digit_images()
    >>> display = SamplePairsDisplay.from_predictions(X, [(0, 10), (1, 11)], y=y)
    >>> display.images.shape
    (2, 2, 8, 8)
    """

    def __init__(self, *, images, captions, rows, title, table=None):
        self.images, self.captions, self.rows, self.title = images, captions, rows, title
        self.table = table

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        kind="redundant",
        n_pairs=8,
        image_shape=None,
        memory=None,
        verbose=0,
        ax=None,
        **imshow_kw,
    ):
        """Redundant samples with their dominators, pruned ones with their stand-ins, or the most
        contradictory pairs.

        Parameters
        ----------
        estimator : fitted RedundancyPruner, nn.Module or fitted skorch net
            A pruner of a strategy with ``dominators_`` for ``kind="redundant"``, of one that
            compares by the kernel for ``"stand_in"``; a network, or a pruner with ``net_``, for
            ``"contradictory"``.
        X : array of shape (n_samples, ...) or DataFrame
            The training samples: images (height, width), (channels, height, width) or
            (height, width, channels), rows with ``image_shape``, or a table.
        y : array of shape (n_samples,)
            Their labels; for ``"contradictory"`` logit columns.
        kind : {"redundant", "stand_in", "contradictory"}, default="redundant"
        n_pairs : int, default=8
            Or fewer. Contradictory ones have the smallest cosines under the lpNTK, and no sample
            twice.
        image_shape : tuple of int, default=None
            Of one image, where X has flat rows.
        memory : str or joblib.Memory, default=None
            Caches the features behind the kernel, as in
            :func:`~sklearn_lpntk.kernels.empirical_ntk`.
        verbose : int, default=0
            Print how far that has come.
        ax : matplotlib Axes or array of them, default=None
            Where it is drawn; None means new ones.
        **imshow_kw
            As for `plot`.

        Returns
        -------
        display : SamplePairsDisplay
        """
        if not isinstance(n_pairs, Integral) or n_pairs < 1:
            raise ValueError(f"n_pairs must be an int of at least 1; got {n_pairs!r}.")
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}; got {kind!r}.")
        finders = {"redundant": _redundant, "stand_in": _stand_ins}
        found = finders.get(kind, _contradictory)
        own = {} if kind in finders else {"memory": memory, "verbose": verbose}
        pairs, values = found(estimator, X, y, n_pairs, **own)
        rows, symbol = {
            "redundant": (("redundant", "dominated by"), "ρ"),
            "stand_in": (("pruned", "stand-in"), "cos"),
            "contradictory": (("one", "the other"), "cos"),
        }[kind]
        return cls.from_predictions(
            X,
            pairs,
            y=y,
            values=[f"{symbol} = {value:.2f}" for value in values],
            rows=rows,
            title={
                "redundant": "Most redundant samples, and what dominates them",
                "stand_in": "Pruned samples, and the kept ones most similar to them",
                "contradictory": "Pairs that hurt each other most",
            }[kind],
            image_shape=image_shape,
            ax=ax,
            **imshow_kw,
        )

    @classmethod
    def from_predictions(
        cls,
        X,
        pairs,
        *,
        X2=None,
        y=None,
        y2=None,
        values=None,
        rows=("sample", "partner"),
        title="Pairs of samples",
        image_shape=None,
        ax=None,
        **imshow_kw,
    ):
        """Draw given pairs.

        Parameters
        ----------
        X : array of shape (n_samples, ...) or DataFrame
            Images, rows with ``image_shape``, or a table, of which five columns are shown.
        pairs : array-like of shape (n_pairs, 2)
            A row of X and one of X2.
        X2 : array of shape (n_samples_2, ...), default=None
            Where the second of each pair is from; None means X.
        y, y2 : arrays of shape (n_samples,) and (n_samples_2,), default=None
            Labels for the captions; y2 is y where X2 is X.
        values : sequence of str, default=None
            One more caption for each pair.
        rows : (str, str), default=("sample", "partner")
            What the upper and the lower samples are.
        title : str, default="Pairs of samples"
            Title of the picture.
        image_shape : tuple of int, default=None
            Of one image, where X has flat rows.
        ax : matplotlib Axes or array of them, default=None
            Where it is drawn; None means new ones.
        **imshow_kw
            As for `plot`.

        Returns
        -------
        display : SamplePairsDisplay
        """
        pairs = np.asarray(pairs)
        if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs) or pairs.dtype.kind not in "iu":
            raise ValueError(
                f"pairs must be an int array of shape (n_pairs, 2); got shape {pairs.shape} and "
                f"dtype {pairs.dtype}."
            )
        for part, index in zip((X, X if X2 is None else X2), pairs.T):
            if index.min() < 0 or index.max() >= n_samples_of(part):
                raise ValueError(
                    f"pairs names rows from {index.min()} to {index.max()}, and there are those "
                    f"from 0 to {n_samples_of(part) - 1}."
                )
        y = None if y is None else vector(y, "y", n_samples_of(X))
        X2, y2 = (X, y) if X2 is None else (X2, y2)
        parts = zip((X, X2), pairs.T)
        (one, table), (two, table2) = (samples_at(p, rows, image_shape) for p, rows in parts)
        labels = [
            [""] * len(pairs) if own is None else [str(np.asarray(own)[i]) for i in index]
            for own, index in zip((y, y2), pairs.T)
        ]
        values = [""] * len(pairs) if values is None else values
        captions = [
            ("\n".join(filter(None, (first, value))), second)
            for first, second, value in zip(*labels, values, strict=True)
        ]
        images = None if table is not None else np.stack([one, two], axis=1)
        if table is not None:  # two lines a pair
            table = table[0], [cells for pair in zip(table[1], table2[1]) for cells in pair]
        display = cls(images=images, captions=captions, rows=rows, title=title, table=table)
        return display.plot(ax, **imshow_kw)

    def plot(self, ax=None, **imshow_kw):
        """Draw the pairs.

        Parameters
        ----------
        ax : matplotlib Axes or array of 2 * n_pairs of them, default=None
            New ones if None; a single one is divided. A table needs one.
        **imshow_kw
            For matplotlib's ``imshow``.

        Returns
        -------
        display : SamplePairsDisplay
        """
        if self.table is not None:
            return self._plot_table(ax)
        n_pairs = len(self.images)
        size = 1.2 * n_pairs + 0.8, 3.6
        axes = grid_for(ax, type(self).__name__, (2, n_pairs), figsize=size)
        style = ({"cmap": "gray_r"} if self.images.ndim == 4 else {}) | imshow_kw
        for column, (pair, captions) in enumerate(zip(self.images, self.captions)):
            for one, image, caption in zip(axes[:, column], pair, captions):
                one.imshow(image, **style)
                one.set_title(caption, fontsize=9)
                one.set(xticks=[], yticks=[])
                one.spines[:].set_visible(False)
        for one, name in zip(axes[:, 0], self.rows):
            one.set_ylabel(name)
        self.axes_, self.figure_ = axes, axes[0, 0].figure
        if ax is None:
            self.figure_.suptitle(self.title)
        return self

    def _plot_table(self, ax):
        names, cells = self.table
        axes = grid_for(ax, type(self).__name__, (1, 1), figsize=(9, 0.27 * len(cells) + 0.8))
        captions = [part.replace("\n", ", ") for pair in self.captions for part in pair]
        sides = list(self.rows) * (len(cells) // 2)
        rows = [[*own, *rest] for *own, rest in zip(sides, captions, cells)]
        draw_table(axes[0, 0], ["", "label", *names], rows)
        axes[0, 0].set_title(self.title, fontsize=10)
        self.axes_, self.figure_ = axes, axes[0, 0].figure
        return self


def _stand_ins(estimator, X, y, n_pairs):
    check_is_fitted(estimator)
    found = getattr(estimator, "_stand_ins", None)
    if found is None:
        raise ValueError(
            "kind='stand_in' needs a fitted RedundancyPruner of a strategy that compares by the "
            f"kernel, such as 'herding'; got a {type(estimator).__name__}."
        )
    vector(estimator.support_, "estimator.support_", n_samples_of(X))
    rows, cosines = found.among(estimator.support_)
    pruned = np.flatnonzero(rows >= 0)
    pruned = pruned[np.argsort(-cosines[pruned], kind="stable")[:n_pairs]]
    if not len(pruned):
        raise ValueError("Nothing was pruned, so there is no pair to draw.")
    return np.stack([pruned, rows[pruned]], axis=1), cosines[pruned]


def _redundant(estimator, X, y, n_pairs):
    check_is_fitted(estimator)
    if not hasattr(estimator, "dominators_"):
        raise ValueError(
            "kind='redundant' needs a fitted RedundancyPruner with dominators_: of strategy "
            f"'redundant' or 'redundant+head'; got a {type(estimator).__name__}."
        )
    scores = vector(estimator.redundancy_, "estimator.redundancy_", n_samples_of(X))
    rows = np.flatnonzero((estimator.dominators_ >= 0) & np.isfinite(scores))
    if not len(rows):
        raise ValueError("The pruner found no redundant sample, so there is no pair to draw.")
    rows = rows[np.argsort(-scores[rows], kind="stable")[:n_pairs]]
    return np.stack([rows, estimator.dominators_[rows]], axis=1), scores[rows]


def _contradictory(estimator, X, y, n_pairs, **options):
    net, X = getattr(estimator, "net_", estimator), as_scored(estimator, X)
    operator = empirical_ntk(net, X, y, **options)
    norms = np.sqrt(np.maximum(operator.diag().astype(np.float64), np.finfo(np.float32).tiny))
    n = len(norms)
    if n < 2:
        raise ValueError(f"A pair needs two samples; got {n}.")
    n_pairs = min(n_pairs, n // 2)
    width = min(2 * n_pairs - 1, n - 1)  # of a sample's partners so many may be taken already
    columns, values = np.empty((n, width), dtype=np.int64), np.empty((n, width))
    for start in range(0, n, 500):
        rows = np.arange(start, min(start + 500, n))
        cosines = operator.block(rows, slice(None)) / (norms[rows, None] * norms)
        cosines[np.arange(len(rows)), rows] = np.inf
        columns[rows] = np.argsort(cosines, axis=1, kind="stable")[:, :width]
        values[rows] = np.take_along_axis(cosines, columns[rows], axis=1)
    pairs, found, used = [], [], set()
    for k in np.argsort(values, axis=None, kind="stable"):
        i, j = k // width, columns.flat[k]
        if not used & {i, j}:
            pairs.append((i, j))
            found.append(values.flat[k])
            used |= {i, j}
        if len(pairs) == n_pairs:
            break
    return np.array(pairs), found
