"""Generalised cross-validation of kernels, and of networks before they are fine-tuned."""

from collections.abc import Mapping

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils import Bunch, check_array, check_consistent_length
from sklearn.utils.multiclass import type_of_target
from torch import nn

from .._gram import checked_gram
from .._skorch.nets import is_skorch_net, unfrozen
from .._skorch.scoring import ends_in_skorch
from ._dense import Spectrum
from ._estimators import NTKClassifier, NTKRegressor
from ._fit import checked_alphas
from ._problem import Problem


def gcv_score(K, Y, alphas):
    """Generalised cross-validation of kernel ridge regression, for many ridges at once.

    Parameters
    ----------
    K : array-like of shape (n_samples, n_samples)
        Kernel matrix; it must be symmetric and positive semidefinite.
    Y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Targets, less whatever offset the regression has: nothing is subtracted here.
    alphas : array-like of shape (n_alphas,)
        Ridges in units of the mean of the kernel's diagonal.

    Returns
    -------
    score : Bunch
        ``alphas`` : ndarray of shape (n_alphas,)
            As given.
        ``gcv`` : ndarray of shape (n_alphas,)
            An estimate of the mean squared error on new samples, outputs summed: lower is better.
        ``degrees_of_freedom`` : ndarray of shape (n_alphas,)
            Trace of the smoother: about as many directions the regression can fit freely.

    Raises
    ------
    ValueError
        If K is no Gram matrix, if Y has another length, or if an alpha is below zero.

    See Also
    --------
    NTKRegressor : With ``alpha="gcv"`` takes the best.
    sklearn_lpntk.inspection.GCVDisplay : Draws it.

    Notes
    -----
    ``GCV = [1/n sum_j (y_j - f(x_j))^2] / [1/n sum_i lambda / (lambda + w_i)]^2`` with the
    eigenvalues w_i of K and lambda the ridge [1]_; one eigendecomposition serves all ridges. One
    below 1e-13 of the largest eigenvalue counts as that.

    References
    ----------
    .. [1] Golub, Heath and Wahba, "Generalized Cross-Validation as a Method for Choosing a Good
       Ridge Parameter", 1979.
    .. [2] Wei, Hu and Steinhardt, "More Than a Toy: Random Matrix Models Predict How Real-World
       Neural Representations Generalize", 2022. arXiv:2203.06176

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_lpntk.linearized import gcv_score
    >>> x = np.linspace(-1, 1, 50)[:, None]
    >>> score = gcv_score(1 + x @ x.T, 2 * x[:, 0], [1e-3, 1e3])
    >>> score.degrees_of_freedom.round(1)
    array([2., 0.])
    """
    K = np.array(checked_gram(K))
    Y = check_array(Y, ensure_2d=False, dtype=np.float64, input_name="Y")
    check_consistent_length(K, Y)
    alphas = checked_alphas("gcv", alphas)
    scale = np.trace(K) / len(K)
    if not scale > 0:
        raise ValueError(f"The mean of the diagonal of K is {scale:.3g}; it must be positive.")
    problem = Problem(Y.reshape(len(Y), -1), offset="zero")
    spectrum = Spectrum(K, problem, scale, 0.0, None)
    used = np.maximum(alphas, spectrum.least)
    left = [spectrum.filter(alpha).residual(spectrum.w).sum() for alpha in used]
    return Bunch(
        alphas=alphas,
        gcv=np.array([spectrum.gcv(alpha) for alpha in used]),
        degrees_of_freedom=len(K) - np.array(left),
    )


def rank_networks(networks, X, y, *, kernel="pntk", alphas=None):
    """Rank networks by how well their linearisation would learn a task.

    Each network's tangent kernel, as the network is, gets the generalised cross-validation error of
    its best ridge on the samples: an estimate of the risk of fine-tuning before any.

    Parameters
    ----------
    networks : dict of name -> nn.Module or skorch net
        Pretrained candidates, used as they are; their outputs may be of another task, for only
        their tangent features count (but with ``kernel="entk"``).
    X : array-like of shape (n_samples, ...)
        Samples of the new task, in any form that the networks take.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Labels of classes, or numbers.
    kernel : {"pntk", "pntk_first", "entk", "entk_trace"}, default="pntk"
        As in :class:`NTKClassifier`.
    alphas : array-like, default=None
        Ridges that are compared, in units of the mean of a kernel's diagonal.

    Returns
    -------
    ranking : Bunch
        ``order`` : list
            Names, the best first.
        ``gcv`` : dict of name -> float
            The error of the best ridge, of one-hot labels or of y, outputs summed.
        ``alpha`` : dict of name -> float
            That ridge.

    Raises
    ------
    TypeError
        If ``networks`` is no dict of networks.
    ValueError
        If a network can't take X, as :meth:`NTKClassifier.fit`.

    See Also
    --------
    gcv_score : The error.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_lpntk.linearized import rank_networks
    >>> X, y = load_digits(return_X_y=True)
    >>> _ = torch.manual_seed(0)
    >>> networks = {
    ...     f"hidden layer of {width}": torch.nn.Sequential(
    ...         torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 10)
    ...     )
    ...     for width in (2, 64)
    ... }
    >>> rank_networks(networks, X[:300] / 16, y[:300]).order
    ['hidden layer of 64', 'hidden layer of 2']
    """
    if not isinstance(networks, Mapping) or not networks:
        raise TypeError(
            "networks must be a dict of at least one name and network; got "
            f"{type(networks).__name__}."
        )
    values = np.asarray(y)
    kind = type_of_target(values)
    regression = kind.startswith("continuous") or kind == "multilabel-indicator"
    estimator = NTKRegressor if regression or values.ndim > 1 else NTKClassifier
    gcv, alpha = {}, {}
    for name, net in networks.items():
        model = estimator(
            _as_it_is(net), kernel=kernel, alpha="gcv", alphas=alphas, random_state=0
        ).fit(X, y)
        gcv[name], alpha[name] = float(model.gcv_values_.min()), model.alpha_
    return Bunch(order=sorted(gcv, key=gcv.get), gcv=gcv, alpha=alpha)


def _as_it_is(net):
    """A network that is not trained again."""
    if isinstance(net, nn.Module):
        return net
    if not (is_skorch_net(net) or ends_in_skorch(net)):
        raise TypeError(
            "networks must hold nn.Modules, fitted skorch nets or Pipelines that end in one; got "
            f"{type(net).__name__}."
        )
    return FrozenEstimator(unfrozen(net))
