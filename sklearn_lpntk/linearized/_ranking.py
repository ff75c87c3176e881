"""Generalised cross-validation of kernels, and of networks before they are fine-tuned."""

from collections.abc import Mapping

import numpy as np
from sklearn.utils import Bunch, check_array, check_consistent_length

from .._gram import checked_gram, one_hot
from .._samples.datasets import Items, is_dataset
from .._samples.given import n_samples_of
from .._samples.labels import require_classes, require_targets
from .._skorch.labels import checked_classes
from .._skorch.networks import Network
from ._dense import Spectrum
from ._fit import checked_alphas, solve
from ._kernels import NAMES, Features, TangentKernel
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
    below 1e-11 of the largest eigenvalue counts as that.

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


def rank_networks(networks, X, y, *, kernel="pntk", alphas=None, task="auto"):
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
    task : {"auto", "classification", "regression"}, default="auto"
        What y is: "auto" takes floating numbers and several columns for numbers to be predicted,
        all else for labels of classes.

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

    Notes
    -----
    The error speaks of new samples like these ones. With few labels a single ranking is noisy: of
    five networks, with 50 labels of digits, Kendall's tau with the accuracy after fine-tuning was
    .34 in the mean of five draws, .80 for the means over draws. Where the task is to generalise
    further than to such samples it can be reversed. A network that was trained on these very labels
    comes out too well.

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
    if kernel not in NAMES:
        raise ValueError(f"kernel must be one of {', '.join(NAMES)}; got {kernel!r}.")
    alphas = checked_alphas("gcv", alphas)
    targets, classified = _targets(X, y, task)
    gcv, alpha = {}, {}
    for name, net in networks.items():
        network = Network(net)
        inputs = network.inputs(X)
        given = TangentKernel(Features(network, kernel)(inputs))
        outputs = _of_rows(targets, classified, given, name)
        solution, _ = solve(
            given,
            Problem(outputs, given.n_rows),
            "gcv",
            alphas,
            time=None,
            solver="auto",
            n_components=None,
            seed=0,
        )
        gcv[name], alpha[name] = float(solution.gcv.min()), solution.alpha
    return Bunch(order=sorted(gcv, key=gcv.get), gcv=gcv, alpha=alpha)


def _targets(X, y, task):
    """Numbers, or one-hot labels, the same for all networks; and whether they are labels."""
    if task not in ("auto", "classification", "regression"):
        raise ValueError(f'task must be "auto", "classification" or "regression"; got {task!r}.')
    y = Items(X).labels() if y is None and is_dataset(X) else y
    values = np.asarray(y)
    if task == "auto":
        several = values.ndim > 1 and values.shape[1:] != (1,)
        task = "regression" if several or values.dtype.kind == "f" else "classification"
    if values.shape[:1] != (n_samples_of(X),):
        raise ValueError(f"y has shape {values.shape}, and X {n_samples_of(X)} samples.")
    if task == "regression":
        require_targets(values)
        return values.astype(np.float64).reshape(len(values), -1), False
    require_classes(values)
    values = values.reshape(-1)
    classes = checked_classes(values)
    return one_hot(np.searchsorted(classes, values), len(classes)), True


def _of_rows(targets, classified, kernel, name):
    """The targets as outputs of a network: all of them, where one kernel serves all."""
    K = kernel.features.n_logits
    if kernel.features.n_cotangents == 1 and K > 1:
        return targets
    if K == 1 and classified and targets.shape[1] == 2:  # one column, with the errors of both
        return (targets[:, 1:] - targets[:, :1]) / 2**0.5
    if kernel.features.n_cotangents == K > 1 and targets.shape[1] != K:
        raise ValueError(
            f'{name!r} has {K} outputs, and y {targets.shape[1]}: kernel="entk" needs as many; '
            "take another kernel."
        )
    return targets
