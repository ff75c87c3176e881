"""How the labels of classes interact, as a heat map."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..infinite import InfiniteWidthNTK, label_interaction_matrix
from ._drawing import axes_for, class_ticks


class LabelInteractionDisplay:
    """Heat map of the label interaction matrix Z, as cosines: which classes are entangled.

    Parameters
    ----------
    Z : ndarray of shape (n_classes, n_classes)
        The label interaction matrix.
    classes : ndarray of shape (n_classes,)
        The class of each row.

    Attributes
    ----------
    cosines : ndarray of shape (n_classes, n_classes)
        ``Z_kd / sqrt(Z_kk Z_dd)``: the more negative, the more entangled.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    sklearn_lpntk.infinite.label_interaction_matrix : Z.
    sklearn_lpntk.infinite.class_entanglement : Rankings by it.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_lpntk.infinite import InfiniteWidthNTK
    >>> from sklearn_lpntk.inspection import LabelInteractionDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> display = LabelInteractionDisplay.from_estimator(InfiniteWidthNTK(), X - X.mean(0), y)
    >>> bool(display.cosines[1, 2] < -0.5)  # versicolor and virginica
    True
    """

    def __init__(self, *, Z, classes):
        self.Z, self.classes = Z, classes

    @property
    def cosines(self):
        scale = np.sqrt(np.diag(self.Z))
        return self.Z / np.outer(scale, scale)

    @classmethod
    def from_estimator(cls, estimator, X, y, *, ridge=0.1, ax=None, **imshow_kw):
        """Draw Z of a kernel, or of the kernel and the repaired labels of a refurbisher.

        Parameters
        ----------
        estimator : callable kernel, or fitted LabelRefurbisher or RefurbishedClassifier
            Of a refurbisher the kernel is taken; give ``labels_`` as y to see its work.
        X : array-like of shape (n_samples, ...)
            Samples, or the Gram matrix where the refurbisher's kernel is "precomputed".
        y : array-like of shape (n_samples,)
            Their labels.
        ridge : float, default=0.1
            In units of the mean of the kernel's diagonal.
        ax : matplotlib Axes, default=None
            Where it is drawn; None means new ones.
        **imshow_kw
            As for `plot`.

        Returns
        -------
        display : LabelInteractionDisplay

        Raises
        ------
        ValueError
            As :func:`~sklearn_lpntk.infinite.label_interaction_matrix`.
        """
        estimator = getattr(estimator, "refurbisher_", estimator)
        kernel = estimator
        if not callable(estimator):
            check_is_fitted(estimator)
            kernel = InfiniteWidthNTK() if estimator.kernel is None else estimator.kernel
            X = estimator._as_compared(X)
        H = X if isinstance(kernel, str) else kernel(X)
        Z, classes = label_interaction_matrix(H, y, ridge=ridge)
        return cls.from_predictions(Z, classes, ax=ax, **imshow_kw)

    @classmethod
    def from_predictions(cls, Z, classes=None, *, ax=None, **imshow_kw):
        """Draw a given matrix.

        Parameters
        ----------
        Z : array-like of shape (n_classes, n_classes)
            The label interaction matrix.
        classes : array-like of shape (n_classes,), default=None
            Names at the axes; None means 0, 1 and so on.
        ax : matplotlib Axes, default=None
            Where it is drawn; None means new ones.
        **imshow_kw
            As for `plot`.

        Returns
        -------
        display : LabelInteractionDisplay

        Raises
        ------
        ValueError
            If Z is not square with a positive diagonal, or ``classes`` does not fit to it.
        """
        Z = np.asarray(Z, dtype=float)
        is_square = Z.ndim == 2 and Z.shape[0] == Z.shape[1] >= 2
        if not is_square or not np.isfinite(Z).all() or not (np.diag(Z) > 0).all():
            raise ValueError(
                "Z must be square, of two classes or more, finite and with a positive diagonal; "
                f"got shape {Z.shape}, diagonal {np.diag(Z) if is_square else None}. It is the "
                "first result of label_interaction_matrix."
            )
        classes = np.arange(len(Z)) if classes is None else np.asarray(classes)
        if classes.shape != (len(Z),):
            raise ValueError(f"classes must have shape ({len(Z)},); got {classes.shape}.")
        return cls(Z=Z, classes=classes).plot(ax, **imshow_kw)

    def plot(self, ax=None, **imshow_kw):
        """Draw the cosines.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            A new one if None.
        **imshow_kw
            For matplotlib's ``imshow``.

        Returns
        -------
        display : LabelInteractionDisplay
        """
        ax = axes_for(ax, type(self).__name__)
        cosines = self.cosines
        np.fill_diagonal(cosines, np.nan)  # ones
        limit = np.nanmax(np.abs(cosines)) or 1.0
        style = {"cmap": "PuOr"} | imshow_kw
        if "norm" not in imshow_kw:
            style = {"vmin": -limit, "vmax": limit} | style
        image = ax.imshow(cosines, **style)
        class_ticks(ax, np.arange(len(self.classes)), self.classes)
        ax.set(xlabel="class", ylabel="class", title="Which classes are in each other's way")
        ax.figure.colorbar(image, ax=ax, label="0: unrelated, negative: entangled")
        self.ax_, self.figure_ = ax, ax.figure
        return self
