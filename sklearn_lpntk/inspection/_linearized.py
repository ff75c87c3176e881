"""What a kernel regression says about ridges, and about the kernel and the labels."""

import numpy as np

from ..linearized._curves import alignment, risk_curves
from ..linearized._fit import checked_alphas
from ..linearized._problem import Problem
from ._drawing import BLACK, BLUE, ORANGE, VERMILION, axes_for, grid_for, legend_beside, vector


def _problem_of(estimator, X, y, sample_weight=None):
    """The problem that a fitted estimator solved, for given samples, and their kernel matrix."""
    if not hasattr(estimator, "kernel_matrix"):
        raise TypeError(
            "estimator must be a fitted NTKClassifier or NTKRegressor; got "
            f"{type(estimator).__name__}."
        )
    K, targets = estimator.kernel_matrix(X), estimator.targets_of(X, y)
    if K.shape[0] != K.shape[1]:
        raise ValueError(f"X must be the kernel matrix of the training samples; got {K.shape}.")
    n_rows, weights = len(K) // len(targets), None
    if sample_weight is not None:
        weights = vector(sample_weight, "sample_weight", len(targets)).astype(float)
        used = np.flatnonzero(weights > 0)
        rows = (used[:, None] * n_rows + np.arange(n_rows)).ravel()
        K, targets, weights = K[np.ix_(rows, rows)], targets[used], weights[used]
    return Problem(targets, n_rows, estimator.offset, weights), K


class GCVDisplay:
    """Generalised cross-validation, training and test risk of a kernel regression by its ridge.

    Training risk falls with the ridge whatever happens on new samples; generalised cross-validation
    follows the test risk without any test sample.

    Parameters
    ----------
    alphas, gcv, train_risk : ndarray of shape (n_alphas,)
        Ridges in units of the mean of the kernel's diagonal, and mean squared errors, outputs
        summed.
    test_risk : ndarray of shape (n_alphas,), default=None
        The same error on other samples.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    sklearn_lpntk.linearized.gcv_score : The numbers, for any kernel matrix.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_lpntk.inspection import GCVDisplay
    >>> from sklearn_lpntk.linearized import NTKClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = NTKClassifier(random_state=0).fit(X[:200], y[:200])
    >>> display = GCVDisplay.from_estimator(model, X[:200], y[:200], X[200:400], y[200:400])
    >>> display.test_risk.shape
    (41,)
    """

    def __init__(self, *, alphas, gcv, train_risk, test_risk=None):
        self.alphas, self.gcv = alphas, gcv
        self.train_risk, self.test_risk = train_risk, test_risk

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        X_test=None,
        y_test=None,
        *,
        alphas=None,
        sample_weight=None,
        ax=None,
        **line_kw,
    ):
        """Draw the risks of a fitted estimator's kernel for many ridges.

        Parameters
        ----------
        estimator : fitted NTKClassifier or NTKRegressor
            Its network, kernel and offset count; its ridge does not.
        X, y : array-like of shape (n_samples, ...) and (n_samples,)
            The training samples, as in its `fit`.
        X_test, y_test : like X and y, default=None
            Other samples, for the test risk.
        alphas : array-like, default=None
            Ridges; None means 41 from 1e-7 to 1e3.
        sample_weight : array-like of shape (n_samples,), default=None
            As in `fit`.
        ax : matplotlib Axes, default=None
            Where it is drawn; None means new ones.
        **line_kw
            As for `plot`.

        Returns
        -------
        display : GCVDisplay
        """
        problem, K = _problem_of(estimator, X, y, sample_weight)
        K_test = targets = None
        if X_test is not None:
            given = isinstance(estimator.net, str)
            K_test = estimator.kernel_matrix(X_test, None if given else X)
            if sample_weight is not None:
                used = np.repeat(np.asarray(sample_weight) > 0, problem.n_rows)
                K_test = K_test[:, used]
            targets = estimator.targets_of(X_test, y_test)
        found = risk_curves(K, problem, checked_alphas("gcv", alphas), K_test, targets)
        display = cls(
            alphas=found.alphas,
            gcv=found.gcv,
            train_risk=found.train_risk,
            test_risk=found.test_risk,
        )
        return display.plot(ax, **line_kw)

    def plot(self, ax=None, **line_kw):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            New ones if None.
        **line_kw
            For matplotlib's ``plot``.

        Returns
        -------
        display : GCVDisplay
        """
        ax = axes_for(ax, type(self).__name__, figsize=(7, 4))
        curves = {
            "GCV, from training samples alone": (self.gcv, BLUE, "-"),
            "risk on test samples": (self.test_risk, VERMILION, "-"),
            "error on training samples": (self.train_risk, BLACK, ":"),
        }
        for label, (values, color, style) in curves.items():
            if values is not None:
                ax.plot(
                    self.alphas, values, **{"color": color, "ls": style, "label": label} | line_kw
                )
        best = self.alphas[np.nanargmin(self.gcv)]
        ax.axvline(best, color=ORANGE, lw=1, label=f"ridge of the least GCV: {best:.2g}")
        ax.set(
            xscale="log",
            yscale="log",
            xlabel="ridge, in units of the mean of the kernel's diagonal",
            ylabel="mean squared error",
            title=self._title(best),
        )
        legend_beside(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _title(self, best):
        if self.test_risk is None:
            return f"GCV chooses a ridge of {best:.2g}"
        ratio = self.test_risk[np.nanargmin(self.gcv)] / np.nanmin(self.test_risk)
        return f"GCV's ridge has {ratio:.2f} times the least test risk"


class SpectrumDisplay:
    """Eigenvalues of a kernel, and how much of the labels lies in its leading directions.

    A kernel regression learns the directions of large eigenvalues first, and from few samples.
    Labels that lie in these are easy for the network; what lies in directions below the ridge is
    not learnt at all.

    Parameters
    ----------
    eigenvalues : ndarray of shape (n,)
        Falling, in units of their mean.
    shares : ndarray of shape (n,)
        Of the labels' variance, by direction.
    ridge : float, default=None
        In the same units.

    Attributes
    ----------
    axes_ : ndarray of two matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    GCVDisplay : What each ridge makes of them.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_lpntk.inspection import SpectrumDisplay
    >>> from sklearn_lpntk.linearized import NTKClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = NTKClassifier(random_state=0).fit(X[:200], y[:200])
    >>> display = SpectrumDisplay.from_estimator(model, X[:200], y[:200])
    >>> bool(display.shares[:20].sum() > 0.5)
    True
    """

    def __init__(self, *, eigenvalues, shares, ridge=None):
        self.eigenvalues, self.shares, self.ridge = eigenvalues, shares, ridge

    @classmethod
    def from_estimator(cls, estimator, X, y, *, sample_weight=None, ax=None, **line_kw):
        """Draw the spectrum of a fitted estimator's kernel.

        Parameters
        ----------
        estimator : fitted NTKClassifier or NTKRegressor
            Its network, kernel and offset count.
        X, y : array-like of shape (n_samples, ...) and (n_samples,)
            Samples and labels, or numbers.
        sample_weight : array-like of shape (n_samples,), default=None
            As in `fit`.
        ax : matplotlib Axes or array of two, default=None
            Where it is drawn; None means new ones.
        **line_kw
            As for `plot`.

        Returns
        -------
        display : SpectrumDisplay
        """
        problem, K = _problem_of(estimator, X, y, sample_weight)
        eigenvalues, shares = alignment(K, problem)
        unit = eigenvalues.sum() / len(K)
        display = cls(eigenvalues=eigenvalues / unit, shares=shares, ridge=estimator.alpha_)
        return display.plot(ax, **line_kw)

    def plot(self, ax=None, **line_kw):
        """Draw both curves.

        Parameters
        ----------
        ax : matplotlib Axes or array of two, default=None
            New ones if None.
        **line_kw
            For matplotlib's ``plot``.

        Returns
        -------
        display : SpectrumDisplay
        """
        axes = grid_for(ax, type(self).__name__, (1, 2), figsize=(10, 4)).ravel()
        rank, style = np.arange(1, len(self.eigenvalues) + 1), {"color": BLUE} | line_kw
        axes[0].plot(rank, np.maximum(self.eigenvalues, 1e-16), **style)
        axes[0].set(
            xscale="log",
            yscale="log",
            xlabel="direction, by its eigenvalue",
            ylabel="eigenvalue / mean of the diagonal",
            title="How fast a direction is learnt",
        )
        if self.ridge:
            axes[0].axhline(self.ridge, color=ORANGE, lw=1, label="ridge: below, little is learnt")
            axes[0].legend(fontsize="small", frameon=False)
        total = np.cumsum(self.shares)
        axes[1].plot(rank, total, **style)
        half = int(np.searchsorted(total, 0.9)) + 1
        axes[1].axvline(min(half, len(rank)), color=VERMILION, lw=1, ls=":")
        axes[1].set(
            xscale="log",
            ylim=(0, 1.02),
            xlabel="leading directions",
            ylabel="share of the labels in them",
            title=f"90 % of the labels lie in {half} of {len(rank)} directions",
        )
        self.axes_, self.figure_ = axes, axes[0].figure
        return self
