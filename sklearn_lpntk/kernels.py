"""Empirical tangent kernels of torch modules and fitted skorch nets."""

import numbers

from sklearn.utils import Bunch

from ._engine.relations import count_relations
from ._features import (
    extract,
    features_key,
    make_extractor,
    operator_of,
    sketch_seed,
    store_path,
    workers_of,
)
from ._operator import KernelOperator
from ._runtime.cache import cached
from ._runtime.progress import shown
from ._skorch.networks import Network

__all__ = [
    "KernelOperator",
    "empirical_ntk",
    "entk_kernel",
    "lpntk_kernel",
    "pntk_kernel",
    "sample_relations",
]


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
    batch_size="auto",
    random_state=None,
    memory=None,
    verbose=0,
):
    """Empirical tangent kernel of a network, as a lazy matrix.

    With the Jacobian ``J(x)`` of the logits with respect to the trainable parameters and a
    cotangent ``v(x, y)``, the feature of a labelled sample is ``phi = J(x)^T v(x, y)`` and
    the kernel of a pair is the inner product of its features. The features are computed
    once, layer by layer; the entries of the kernel when they are asked for. Features that
    would take more than half of the free memory are computed anew at every use, in an order
    that does so as rarely as scikit-learn's ``working_memory`` allows (so they follow later
    changes of the network and of X); ``store`` and ``n_components`` are the faster ways. The
    logger ``sklearn_lpntk`` tells which it was.

    Parameters
    ----------
    module_or_net : nn.Module or fitted skorch net
        The network. It must return logits, of shape (n_samples, n_logits) or (n_samples,);
        of a tuple, element 0 counts; of an object or dict, ``logits``. It is used in evaluation
        mode and comes back exactly as it was. One in bfloat16 is computed in a float32 copy,
        with a warning.
    X : array, tensor or frame of shape (n_samples, ...), or dict of them
        Inputs; numbers and booleans of any dtype, also a frame's nullable ones. Of an array on
        disk, or of any object with ``shape``, ``dtype`` and slices, only a batch is read at a
        time. Floating arrays are cast to the parameters' dtype, integers to int64; a dict is
        passed as keyword arguments. A map-style torch ``Dataset`` of items x, (x, y) or dicts,
        or a ``DataLoader`` of one that does not shuffle, is read a batch at a time.
    y : array of shape (n_samples,), default=None
        Logit columns 0..K-1 (0 and 1 for a network with one logit); needed by
        ``"lpntk"`` and ``"loss_gradient"``; None takes those of a data set's items.
    X2, y2 : like X and y, default=None
        The samples of the columns; None means X and y, which costs half.
    kernel : {"lpntk", "pntk", "pntk_first", "loss_gradient", "entk", "entk_trace"} or \
            callable, default="lpntk"
        The cotangent; ``"entk"`` has a row for every logit, and ``"entk_trace"`` is the mean
        over equal logits, ``1/K sum_k J_k(x) J_k(x')^T``. A callable gets the logits, a
        tensor of shape (n, K), and y, an int64 tensor (zeros where y is None), and returns (n, K)
        or (n, R, K).
    parameters : str, sequence of str or callable, default=None
        Which trainable parameters count: name prefixes such as ``"layer4"``, or a predicate
        on the name. None means all.
    n_components : int, default=None
        Replace the features by a random sketch of this size. It has no bias, and the standard
        error of an entry is at most ``sqrt(2 / n_components)`` times the product of the
        features' norms, or ``sqrt(11 / n_components)`` where most of them belong to large
        layers, which take a TensorSketch.
    store : path-like, default=None
        A folder that keeps the features, for more of them than fit into memory. One that was
        interrupted is completed, by several processes at once if you like; one of another
        network, data set, kernel or dtype is refused. With ``random_state=None`` its sketch
        is that of seed 0.
    batch_size : int or "auto", default="auto"
        Samples in one forward pass; ``"auto"`` takes as many as 32 MB of activations hold, at
        most 256.
    random_state : int, RandomState instance or None, default=None
        Draws the sketch.
    memory : str or joblib.Memory, default=None
        Caches features that fit into memory, by the values of the network and of X. A sketch needs
        an int ``random_state``. The folder holds pickles: open only those that you trust.
    verbose : int, default=0
        Print how far the computation of the features has come, and the remaining time.

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
    StoreMismatchError
        If ``store`` holds the features of something else.
    OSError
        If the disk of ``store`` is full; what is done is kept.
    ValueError
        If the network emits probabilities by its criterion (``NLLLoss``), has no trainable
        parameters, depends on the rest of the batch, or contains or returns NaN or infinity;
        if y is missing where it is needed, or holds other values than logit columns.

    See Also
    --------
    lpntk_kernel : The labelled kernel as an array.
    sample_relations : Counts of interchangeable, unrelated and contradictory partners.
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
    if y2 is not None and X2 is None:
        raise ValueError("y2 was given without X2; pass the samples that y2 labels.")
    network = Network(module_or_net)
    extractor = make_extractor(network, kernel=kernel, parameters=parameters, batch_size=batch_size)
    if store is not None and random_state is None:
        random_state = 0  # a store is completed and read again under the same sketch
    seed = sketch_seed(n_components, random_state)
    folders = (None, None) if store is None else (store_path(store, "X"), store_path(store, "X2"))
    data = [(network.inputs(X), y)]
    if X2 is not None:
        data.append((network.inputs(X2, "X2"), y2))

    def compute():
        return _features_of(extractor, data, n_components, seed, folders)

    with shown("[empirical_ntk] compute features", verbose=verbose):
        if memory is None or store is not None:
            return operator_of(*compute())
        key = features_key(extractor, data, n_components, seed)
        found = cached(memory, "features", compute, key, worth=_are_in_memory)
        return operator_of(*found)


def _are_in_memory(parts):
    return all(features.in_memory for features in parts)


def _features_of(extractor, data, n_components, seed, folders):
    """Features of X, and of X2 where it is there, under one plan."""
    (X, y), *rest = data
    features = extract(extractor, X, y, n_components, seed, store=folders[0])
    if not rest:
        return (features,)
    settled, (X2, y2) = extractor.plan, rest[0]
    other = extract(extractor, X2, y2, n_components, seed, store=folders[1], names=("X2", "y2"))
    if not extractor.plan.fits(settled):
        # X2 showed that a rule is wrong for this network: so it was for X
        features = extract(extractor, X, y, n_components, seed, store=folders[0])
    return features, other


def lpntk_kernel(module_or_net, X, y=None, X2=None, y2=None, **options):
    """Labelled pseudo neural tangent kernel of labelled samples (equation 3 of [1]_).

    ``kappa((x, y), (x', y')) = 1/K s(y)^T J(x) J(x')^T s(y')`` with ``s`` -1 everywhere and
    +1 at the label: positive for interchangeable samples, negative for contradictory ones.

    Parameters
    ----------
    module_or_net, X, y, X2, y2
        As in :func:`empirical_ntk`.
    **options
        ``parameters, n_components, store, batch_size, random_state, memory, verbose`` of
        :func:`empirical_ntk`.

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
        ``parameters, n_components, store, batch_size, random_state, memory, verbose`` of
        :func:`empirical_ntk`.

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
        ``parameters, n_components, store, batch_size, random_state, memory, verbose`` of
        :func:`empirical_ntk`.

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
    return empirical_ntk(module_or_net, X, None, X2, kernel="entk", **options).blocks()


def sample_relations(operator, *, threshold, threshold_unrelated):
    """How many samples each sample helps, ignores and fights.

    By the ratios of [1]_, appendix C: the pair i, j is *interchangeable* where both
    ``K_ij / K_ii`` and ``K_ij / K_jj`` are at least ``threshold``, *contradictory* where both are
    at most its negative, *unrelated* where both are below ``threshold_unrelated`` in absolute
    value, and in between otherwise. A sample without gradient is unrelated to all.

    Parameters
    ----------
    operator : KernelOperator
        Symmetric, with one cotangent a sample, as from :func:`empirical_ntk`.
    threshold : float in (0, 1]
        The paper takes values above 0.5. No pair has both ratios above 1.
    threshold_unrelated : float in [0, threshold]
        Below it in absolute value both ratios of an unrelated pair lie.

    Returns
    -------
    relations : Bunch
        ``interchangeable, unrelated, contradictory, between`` : ndarray of shape (n_samples,)
            Number of partners of each kind, n_samples - 1 in all.
        ``n_evaluated`` : int
            Entries of the kernel that were computed; bounds decided the others. All pairs are
            ``n_samples ** 2 / 2``.

    Raises
    ------
    TypeError
        If ``operator`` is no operator.
    ValueError
        If a threshold is out of range, or the operator is not symmetric or has several
        cotangents a sample.

    Notes
    -----
    The counts are those of the whole kernel. Bounds help where most pairs are clearly
    of one kind; with a small ``threshold_unrelated`` nearly all pairs are computed. The pairs
    are spread over the workers of ``joblib.parallel_config``.

    References
    ----------
    .. [1] "lpNTK: Better Generalisation with Less Data via Sample Interaction During
       Learning", appendix C. arXiv:2401.08808

    Examples
    --------
    >>> import torch
    >>> from sklearn_lpntk.kernels import empirical_ntk, sample_relations
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> X, y = torch.randn(100, 4), torch.arange(100) % 3
    >>> operator = empirical_ntk(net, X, y)
    >>> relations = sample_relations(operator, threshold=0.6, threshold_unrelated=0.1)
    >>> (relations.interchangeable + relations.unrelated
    ...     + relations.contradictory + relations.between == 99).all()
    np.True_
    """
    if not isinstance(operator, KernelOperator):
        raise TypeError(
            f"operator must be a KernelOperator, as empirical_ntk returns; got {type(operator)}."
        )
    numeric = all(isinstance(t, numbers.Real) for t in (threshold, threshold_unrelated))
    if not (numeric and 0 < threshold <= 1 and 0 <= threshold_unrelated <= threshold):
        raise ValueError(
            "The thresholds must hold 0 <= threshold_unrelated <= threshold <= 1, and threshold "
            f"> 0; got threshold={threshold!r} and threshold_unrelated={threshold_unrelated!r}."
        )
    if not operator.kernel.symmetric:
        raise ValueError(
            f"Relations are among the samples of one set; this operator of shape {operator.shape} "
            "compares two. Make it without X2."
        )
    counts, n_evaluated = count_relations(
        operator.kernel, threshold, threshold_unrelated, **workers_of(operator)
    )
    counts = counts.numpy()
    return Bunch(
        interchangeable=counts[:, 0],
        unrelated=counts[:, 1],
        contradictory=counts[:, 2],
        between=len(counts) - 1 - counts.sum(axis=1),
        n_evaluated=n_evaluated,
    )
