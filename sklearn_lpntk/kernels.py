"""Empirical tangent kernels of torch modules and fitted skorch nets."""

import numbers
from collections.abc import Mapping

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn import get_config
from sklearn.utils import check_random_state

from ._engine.cotangents import find_cotangent
from ._engine.extract import Extractor
from ._engine.inputs import n_rows, require_real_numbers
from ._engine.operator import KernelOperator
from ._nets import logits_module

__all__ = ["KernelOperator", "empirical_ntk", "entk_kernel", "lpntk_kernel", "pntk_kernel"]


def empirical_ntk(
    module_or_net,
    X,
    y=None,
    X2=None,
    y2=None,
    *,
    kernel="lpntk",
    parameters=None,
    n_components=None,
    store=None,
    batch_size=256,
    random_state=None,
):
    """Empirical tangent kernel of a network, as a lazy matrix.

    With the Jacobian ``J(x)`` of the logits with respect to the trainable parameters and a
    cotangent ``v(x, y)``, the feature of a labelled sample is ``phi = J(x)^T v(x, y)`` and
    the kernel of a pair is the inner product of its features. The features are computed
    once, layer by layer; the entries of the kernel when they are asked for.

    Parameters
    ----------
    module_or_net : nn.Module or fitted skorch net
        The network. It must return logits, of shape (n_samples, n_logits) or (n_samples,);
        of a tuple, element 0 counts. It is used in evaluation mode and comes back exactly
        as it was.
    X : array or tensor of shape (n_samples, ...), or dict of them
        Inputs. Floating arrays are cast to the parameters' dtype, integers to int64; a dict
        is passed as keyword arguments.
    y : array of shape (n_samples,), default=None
        Logit columns 0..K-1 (0 and 1 for a network with one logit); needed by
        ``"lpntk"`` and ``"loss_gradient"``.
    X2, y2 : like X and y, default=None
        The samples of the columns; None means X and y, which costs half.
    kernel : {"lpntk", "pntk", "pntk_first", "loss_gradient", "entk"} or callable, \
            default="lpntk"
        The cotangent. A callable gets the logits, a tensor of shape (n, K), and y, an int64
        tensor (zeros where y is None), and returns (n, K) or (n, R, K).
    parameters : str, sequence of str or callable, default=None
        Which trainable parameters count: name prefixes such as ``"layer4"``, or a predicate
        on the name. None means all.
    n_components : int, default=None
        Replace the features by a random sketch of this size; the standard error of an entry
        is at most ``sqrt(2 / n_components)`` times the product of the features' norms.
    store : None
        Reserved for factors kept on disk.
    batch_size : int, default=256
        Samples in one forward pass.
    random_state : int, RandomState instance or None, default=None
        Draws the sketch.

    Returns
    -------
    operator : KernelOperator
        Of shape (n_samples * R, n_samples_2 * R), with R = 1 for all kernels but ``"entk"``
        (R = K) and callables that return R cotangents; rows are sample-major.

    Raises
    ------
    TypeError
        If ``module_or_net`` is neither a module nor a skorch net.
    NotFittedError
        If the skorch net is not fitted.
    ValueError
        If the network emits probabilities by its criterion (``NLLLoss``), has no trainable
        parameters, depends on the rest of the batch, or contains or returns NaN or infinity;
        if y is missing where it is needed, or holds other values than logit columns.

    See Also
    --------
    lpntk_kernel : The labelled kernel as an array.
    pntk_kernel : The label-free kernel as an array.
    entk_kernel : All pairs of logits.

    References
    ----------
    .. [1] "lpNTK: Better Generalisation with Less Data via Sample Interaction During
       Learning", Eq. 3. arXiv:2401.08808
    .. [2] Mohamadi, Bae and Sutherland, "A Fast, Well-Founded Approximation to the
       Empirical Neural Tangent Kernel" (the pseudo-NTK). arXiv:2206.12543

    Examples
    --------
    >>> import torch
    >>> from sklearn_lpntk.kernels import empirical_ntk
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> X, y = torch.randn(100, 4), torch.arange(100) % 3
    >>> operator = empirical_ntk(net, X, y)
    >>> operator.shape
    (100, 100)
    >>> operator.block([0, 1], slice(10)).shape
    (2, 10)
    """
    if store is not None:
        raise ValueError(
            "store= is not available yet: factors are kept in memory; pass store=None, and "
            "n_components= where they do not fit."
        )
    if y2 is not None and X2 is None:
        raise ValueError("y2 was given without X2; pass the samples that y2 labels.")
    extractor = make_extractor(
        module_or_net, kernel=kernel, parameters=parameters, batch_size=batch_size
    )
    seed = sketch_seed(n_components, random_state)
    features = extract(extractor, X, y, n_components, seed)
    other = None
    if X2 is not None:
        fallbacks = len(extractor.plan.autograd)
        other = extract(extractor, X2, y2, n_components, seed, names=("X2", "y2"))
        if len(extractor.plan.autograd) > fallbacks:
            # X2 showed that a rule is wrong for this network: so it was for X
            features = extract(extractor, X, y, n_components, seed)
    return operator_of(features, other)


def lpntk_kernel(module_or_net, X, y, X2=None, y2=None, **options):
    """Labelled pseudo neural tangent kernel, Eq. 3 of [1]_.

    ``kappa((x, y), (x', y')) = 1/K s(y)^T J(x) J(x')^T s(y')`` with ``s`` -1 everywhere and
    +1 at the label: positive for interchangeable samples, negative for contradictory ones.

    Parameters
    ----------
    module_or_net, X, y, X2, y2
        As in :func:`empirical_ntk`.
    **options
        ``parameters, n_components, batch_size, random_state`` of :func:`empirical_ntk`.

    Returns
    -------
    K : ndarray of shape (n_samples, n_samples_2)

    Raises
    ------
    TypeError, NotFittedError, ValueError
        As :func:`empirical_ntk`.

    See Also
    --------
    empirical_ntk : The same without the array, for large n.

    References
    ----------
    .. [1] "lpNTK: Better Generalisation with Less Data via Sample Interaction During
       Learning". arXiv:2401.08808

    Examples
    --------
    >>> import torch
    >>> from sklearn_lpntk.kernels import lpntk_kernel
    >>> net = torch.nn.Linear(2, 2, bias=False)
    >>> lpntk_kernel(net, torch.eye(2), [0, 1]).round(3)
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    return empirical_ntk(module_or_net, X, y, X2, y2, kernel="lpntk", **options).toarray()


def pntk_kernel(module_or_net, X, X2=None, **options):
    """Pseudo neural tangent kernel: the label-free sum-of-logits form.

    Parameters
    ----------
    module_or_net, X, X2
        As in :func:`empirical_ntk`.
    **options
        ``parameters, n_components, batch_size, random_state`` of :func:`empirical_ntk`.

    Returns
    -------
    K : ndarray of shape (n_samples, n_samples_2)

    Raises
    ------
    TypeError, NotFittedError, ValueError
        As :func:`empirical_ntk`.

    See Also
    --------
    lpntk_kernel : The labelled kernel.

    References
    ----------
    .. [1] Mohamadi, Bae and Sutherland, "A Fast, Well-Founded Approximation to the
       Empirical Neural Tangent Kernel". arXiv:2206.12543

    Examples
    --------
    >>> import torch
    >>> from sklearn_lpntk.kernels import pntk_kernel
    >>> pntk_kernel(torch.nn.Linear(2, 2, bias=False), torch.eye(2)).shape
    (2, 2)
    """
    return empirical_ntk(module_or_net, X, None, X2, kernel="pntk", **options).toarray()


def entk_kernel(module_or_net, X, X2=None, **options):
    """Full empirical neural tangent kernel: one K x K block a pair.

    Parameters
    ----------
    module_or_net, X, X2
        As in :func:`empirical_ntk`.
    **options
        ``parameters, n_components, batch_size, random_state`` of :func:`empirical_ntk`.

    Returns
    -------
    K : ndarray of shape (n_samples, n_samples_2, n_logits, n_logits)
        ``K[n, m, a, b]`` is the inner product of the gradients of logit a at sample n and of
        logit b at sample m.

    Raises
    ------
    TypeError, NotFittedError, ValueError
        As :func:`empirical_ntk`.

    See Also
    --------
    pntk_kernel : Its sum over logits, divided by their number.

    Examples
    --------
    >>> import torch
    >>> from sklearn_lpntk.kernels import entk_kernel
    >>> entk_kernel(torch.nn.Linear(2, 3), torch.eye(2)).shape
    (2, 2, 3, 3)
    """
    operator = empirical_ntk(module_or_net, X, None, X2, kernel="entk", **options)
    n_logits = operator._features.n_logits
    blocks = operator.toarray().reshape(
        operator._features.n_samples, n_logits, operator._other.n_samples, n_logits
    )
    return np.ascontiguousarray(blocks.transpose(0, 2, 1, 3))


# -- shared with the estimators -----------------------------------------------------------


def operator_of(features, other=None):
    """The kernel of features, in tiles of scikit-learn's ``working_memory``."""
    return KernelOperator(features, other, working_memory=get_config()["working_memory"])


def make_extractor(module_or_net, *, kernel="lpntk", parameters=None, batch_size=256, plan=None):
    """The engine's extractor for a module or a fitted skorch net."""
    if not isinstance(batch_size, numbers.Integral) or batch_size < 1:
        raise ValueError(f"batch_size must be an int of at least 1; got {batch_size!r}.")
    return Extractor(
        logits_module(module_or_net),
        find_cotangent(kernel),
        parameters=parameters,
        batch_size=int(batch_size),
        plan=plan,
    )


def sketch_seed(n_components, random_state):
    """The seed of a sketch, or None where there is none to draw."""
    if n_components is None:
        return None
    if not isinstance(n_components, numbers.Integral) or n_components < 1:
        raise ValueError(
            f"n_components must be None or an int of at least 1; got {n_components!r}."
        )
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def extract(extractor, X, y=None, n_components=None, seed=None, *, names=("X", "y")):
    """Features of labelled samples, sketched batch by batch where ``n_components`` says so."""
    if issparse(X):
        raise ValueError("X is sparse; the network takes dense arrays: pass X.toarray().")
    if not isinstance(X, (Mapping, torch.Tensor)):
        X = np.asarray(X)
        require_real_numbers(X)
    y = _check_columns(extractor, y, n_rows(X), names)
    sketch = None if n_components is None else (int(n_components), seed)
    return extractor(X, y, sketch=sketch)


def _check_columns(extractor, y, n, names):
    if y is None:
        if extractor.cotangent.needs_y:
            raise ValueError(
                f"kernel={extractor.cotangent.name!r} compares labelled samples: pass "
                f"{names[1]}, the logit column of each sample of {names[0]}; or use "
                "kernel='pntk', which needs no labels."
            )
        return None
    y = np.asarray(y.cpu() if isinstance(y, torch.Tensor) else y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.shape != (n,):
        raise ValueError(
            f"{names[1]} must have shape ({n},), one logit column a sample; got {y.shape}."
        )
    y = np.array(y.tolist()) if y.dtype == object else y
    if not np.issubdtype(y.dtype, np.number) and y.dtype != bool:
        raise ValueError(
            f"{names[1]} must hold logit columns, integers from 0; got dtype {y.dtype}. Encode "
            "labels first, for example with sklearn.preprocessing.LabelEncoder."
        )
    columns = y.astype(np.int64)
    if not np.array_equal(columns, y):
        raise ValueError(f"{names[1]} must hold integers (logit columns); got {y.dtype} values.")
    return columns
