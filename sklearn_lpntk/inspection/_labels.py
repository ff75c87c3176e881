"""Repaired labels: the images whose label was changed, and the error on the way."""

from numbers import Integral

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .._samples.given import n_samples_of
from ._drawing import BLUE, axes_for, draw_table, grid_for, samples_at, vector


class FlippedLabelsDisplay:
    """Images or rows of a table whose labels were repaired, with the old and the new label.

    Parameters
    ----------
    images : ndarray of shape (n_images, height, width) or (n_images, height, width, 3), or None
        The samples, if they are images.
    flips : DataFrame or structured ndarray of shape (n_images,)
        With ``old, new, margin``.
    n_columns : int, default=8
        Images side by side.
    table : (list of str, list of list of str), default=None
        Names and cells of samples that are rows of a table, in place of images.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    sklearn_lpntk.infinite.LabelRefurbisher : Finds the flips.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_lpntk.infinite import LabelRefurbisher
    >>> from sklearn_lpntk.inspection import FlippedLabelsDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> y[::50] = (y[::50] + 1) % 10
    >>> refurbisher = LabelRefurbisher().fit(X, y)
    >>> display = FlippedLabelsDisplay.from_estimator(refurbisher, X, image_shape=(8, 8))
    >>> display.images.shape
    (16, 8, 8)
    """

    def __init__(self, *, images, flips, n_columns=8, table=None):
        self.images, self.flips, self.n_columns = images, flips, n_columns
        self.table = table

    @classmethod
    def from_estimator(
        cls, estimator, X, *, n_images=16, image_shape=None, n_columns=8, ax=None, **imshow_kw
    ):
        """The flips of a fitted refurbisher with the largest margins.

        Parameters
        ----------
        estimator : fitted LabelRefurbisher or RefurbishedClassifier
            Whose results are drawn.
        X : array of shape (n_samples, ...) or DataFrame
            What it was fitted to: images, rows with ``image_shape``, or a table.
        n_images : int, default=16
            The most images that are drawn.
        image_shape : tuple of int, default=None
            Of one image, (height, width), (height, width, 3) or (channels, height, width), where X
            has flat rows.
        n_columns : int, default=8
            Images side by side.
        ax : matplotlib Axes or array of them, default=None
            New ones if None.
        **imshow_kw
            As for `plot`.

        Returns
        -------
        display : FlippedLabelsDisplay

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If no label was flipped, or as `from_predictions`.
        """
        estimator = getattr(estimator, "refurbisher_", estimator)
        check_is_fitted(estimator, "label_quality_")
        _at_least_one(n_images, "n_images")
        flips = estimator.flips_.sort_values("margin", ascending=False, kind="stable")[:n_images]
        return cls.from_predictions(
            X, flips, image_shape=image_shape, n_columns=n_columns, ax=ax, **imshow_kw
        )

    @classmethod
    def from_predictions(cls, X, flips, *, image_shape=None, n_columns=8, ax=None, **imshow_kw):
        """Draw given flips.

        Parameters
        ----------
        X : array of shape (n_samples, ...) or DataFrame
            Images, rows with ``image_shape``, or a table, of which five columns are shown.
        flips : DataFrame or structured array of shape (n_images,)
            With ``row, old, new, margin``, as ``LabelRefurbisher.flips_``; drawn in this order.
        image_shape : tuple of int, default=None
            Of one image, (height, width), (height, width, 3) or (channels, height, width), where X
            has flat rows.
        n_columns : int, default=8
            Images side by side.
        ax : matplotlib Axes or array of them, default=None
            New ones if None.
        **imshow_kw
            As for `plot`.

        Returns
        -------
        display : FlippedLabelsDisplay

        Raises
        ------
        ValueError
            If ``flips`` is anything else or empty, if X lacks one of the samples or holds no
            images, or for ``n_columns`` below 1.
        """
        _at_least_one(n_columns, "n_columns")
        names = getattr(flips, "columns", getattr(getattr(flips, "dtype", None), "names", None))
        names = [] if names is None else list(names)
        if not {"row", "old", "new", "margin"} <= set(names):
            raise ValueError(
                "flips must be a frame with row, old, new and margin, as "
                f"LabelRefurbisher.flips_; got a {type(flips).__name__} with {names}."
            )
        if not len(flips):
            raise ValueError("No label was flipped, so there is no image to draw.")
        rows = np.asarray(flips["row"])
        n = n_samples_of(X)
        if not (rows.min() >= 0 and rows.max() < n):
            raise ValueError(
                f"flips has the sample {rows.max()}, and X has {n}; pass the X that the "
                "refurbisher was fitted to."
            )
        images, table = samples_at(X, rows, image_shape)
        display = cls(images=images, flips=flips, n_columns=n_columns, table=table)
        return display.plot(ax, **imshow_kw)

    def plot(self, ax=None, **imshow_kw):
        """Draw the images, or a table.

        Parameters
        ----------
        ax : matplotlib Axes or array of as many as the grid has, default=None
            New ones if None; a single one is divided. A table needs one.
        **imshow_kw
            For matplotlib's ``imshow``.

        Returns
        -------
        display : FlippedLabelsDisplay
        """
        old, new, margin = (np.asarray(self.flips[k]) for k in ("old", "new", "margin"))
        if self.table is not None:
            return self._plot_table(ax, old, new, margin)
        n = len(self.images)
        columns = min(self.n_columns, n)
        rows = -(-n // columns)
        size = 1.15 * columns, 1.45 * rows + 0.4
        axes = grid_for(ax, type(self).__name__, (rows, columns), figsize=size)
        style = ({"cmap": "gray_r"} if self.images.ndim == 3 else {}) | imshow_kw
        for one in axes.ravel():
            one.set_axis_off()
        for one, image, *flip in zip(axes.ravel(), self.images, old, new, margin):
            one.imshow(image, **style)
            one.set_title("{} → {}\n{:.2f}".format(*flip), fontsize=9)
        self.axes_, self.figure_ = axes, axes[0, 0].figure
        if ax is None:
            self.figure_.suptitle("Repaired labels: old → new, and margin", fontsize=10)
        return self

    def _plot_table(self, ax, old, new, margin):
        (names, cells), n = self.table, len(old)
        axes = grid_for(ax, type(self).__name__, (1, 1), figsize=(9, 0.27 * n + 0.8))
        own = zip(map(str, old), map(str, new), (f"{m:.2f}" for m in margin))
        rows = [[name, *flip, *rest] for flip, (name, *rest) in zip(own, cells)]
        draw_table(axes[0, 0], [names[0], "old", "new", "margin", *names[1:]], rows)
        axes[0, 0].set_title("Repaired labels", fontsize=10)
        self.axes_, self.figure_ = axes, axes[0, 0].figure
        return self


def _at_least_one(value, name):
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}.")


class ErrorPathDisplay:
    """Block-diagonalisation error of the labels while they are repaired.

    Parameters
    ----------
    error_path : ndarray of shape (n_changes + 1,)
        The error before the first change and after each.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    sklearn_lpntk.infinite.LabelRefurbisher : Has it as ``error_path_``.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn_lpntk.inspection import ErrorPathDisplay
    >>> display = ErrorPathDisplay.from_predictions([3.0, 2.0, 1.5])
    >>> display.ax_.get_xlabel()
    'labels changed'
    """

    def __init__(self, *, error_path):
        self.error_path = error_path

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, **line_kw):
        """The path of a fitted refurbisher.

        Parameters
        ----------
        estimator : fitted LabelRefurbisher or RefurbishedClassifier
            Whose results are drawn.
        ax : matplotlib Axes, default=None
            Where it is drawn; None means new ones.
        **line_kw
            As for `plot`.

        Returns
        -------
        display : ErrorPathDisplay

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        """
        estimator = getattr(estimator, "refurbisher_", estimator)
        check_is_fitted(estimator, "error_path_")
        return cls.from_predictions(estimator.error_path_, ax=ax, **line_kw)

    @classmethod
    def from_predictions(cls, error_path, *, ax=None, **line_kw):
        """Draw a given path.

        Parameters
        ----------
        error_path : array-like of shape (n_changes + 1,)
            As ``LabelRefurbisher.error_path_``.
        ax : matplotlib Axes, default=None
            Where it is drawn; None means new ones.
        **line_kw
            As for `plot`.

        Returns
        -------
        display : ErrorPathDisplay

        Raises
        ------
        ValueError
            If it has another shape.
        """
        return cls(error_path=vector(error_path, "error_path")).plot(ax, **line_kw)

    def plot(self, ax=None, **line_kw):
        """Draw the error against the number of changes.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            A new one if None.
        **line_kw
            For matplotlib's ``plot``.

        Returns
        -------
        display : ErrorPathDisplay
        """
        ax = axes_for(ax, type(self).__name__)
        style = {} if {"c", "color"} & set(line_kw) else {"color": BLUE}
        ax.plot(np.arange(len(self.error_path)), self.error_path, **style, **line_kw)
        ax.set(
            xlabel="labels changed",
            ylabel="how hard the labels are to learn (error)",
            title="Repairing labels",
        )
        self.ax_, self.figure_ = ax, ax.figure
        return self
