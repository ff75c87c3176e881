"""Where the samples are: the axis of a tensor that runs over them, followed through operations.

A label says of a tensor that slice i along an axis depends on sample i and constants only. An
operation keeps that up or it does not: what is not known to keep it gives `UNKNOWN`, and so does
whatever is computed from it. So labels prove to whom a row belongs: logits that carry one have
seen nothing but operations that leave samples apart.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from .names import DIMENSION_FREE, ELEMENTWISE


class Samples(NamedTuple):
    """Along ``axis``, of length ``outer * n * inner``, entry j is of sample ``j // inner % n``."""

    axis: int
    outer: int = 1
    inner: int = 1


CONSTANT, UNKNOWN = "constant", "unknown"
SINGLE = Samples(-1)  # all of a batch of one sample, whatever the axes


class Operation(NamedTuple):
    """An operation that took place: what its label is read off."""

    function: Callable
    args: tuple
    kwargs: dict
    label_of: Callable  # of a tensor
    n: int

    def get(self, position, name, default=None):
        """An argument by position or name."""
        if name in self.kwargs:
            return self.kwargs[name]
        return self.args[position] if len(self.args) > position else default


def label(name, operation, out, tensors):
    """The label of one output of an operation, given all tensors among its arguments."""
    labels = {operation.label_of(t) for t in tensors}
    if labels <= {CONSTANT}:
        return CONSTANT
    if UNKNOWN in labels:
        return UNKNOWN
    if operation.n == 1:
        return SINGLE
    try:
        found = _FOLLOWED[name](operation, out) if name in _FOLLOWED else None
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        found = None  # arguments in a form that is not foreseen
    return UNKNOWN if found is None or not _fits(found, out, operation.n) else found


def _fits(label, out, n):
    size = out.shape[label.axis] if 0 <= label.axis < out.ndim else -1
    return size == label.outer * n * label.inner


def by_sample(x, where, n, kept):
    """A tensor as (n, T, ...): its samples first, the last ``kept`` axes as they are."""
    tail = x.shape[x.ndim - kept :] if kept else ()
    if where.axis < 0:
        return x.reshape(1, -1, *tail)
    if where.axis or where.outer > 1:
        x = x.unflatten(where.axis, (where.outer, n, where.inner)).movedim(where.axis + 1, 0)
    return x.reshape(n, -1, *tail)


def guesses(shape, n):
    """Labels that a shape admits where none is known, the likeliest first."""
    found = []
    if shape and shape[0] == n:
        found.append(Samples(0))
    if len(shape) > 1 and shape[1] == n:
        found.append(Samples(1))
    if shape and shape[0] > n and shape[0] % n == 0:
        found += [Samples(0, 1, shape[0] // n), Samples(0, shape[0] // n, 1)]
    return found


# -- operations, by name ------------------------------------------------------------------

_FOLLOWED = {}


def _follows(names):
    def register(function):
        _FOLLOWED.update(dict.fromkeys(names.split(), function))
        return function

    return register


def _labelled(operation, tensors):
    """Those among some tensors that have an axis of samples, with their labels."""
    pairs = [(t, operation.label_of(t)) for t in tensors if isinstance(t, torch.Tensor)]
    return [(t, where) for t, where in pairs if where != CONSTANT]


def aligned(pairs, ndim):
    """The common label of tensors that are broadcast to ``ndim`` axes, or None."""
    found = {w._replace(axis=w.axis + ndim - t.ndim) for t, w in pairs}
    return found.pop() if len(found) == 1 else None


@_follows(ELEMENTWISE)
def _elementwise(operation, out):
    values = (*operation.args, *operation.kwargs.values())
    if len(values) == 1 and operation.function.__name__ == "where":
        return None  # positions, of all samples in a row
    return aligned(_labelled(operation, values), out.ndim)


@_follows("view reshape flatten unflatten squeeze unsqueeze view_as reshape_as _unsafe_view ravel")
def _reshape(operation, out):
    x = operation.args[0]
    where, shape = operation.label_of(x), x.shape
    step = where.inner * math.prod(shape[where.axis + 1 :])  # from one sample to the next
    span = step * operation.n
    below = math.prod(out.shape)
    for axis, size in enumerate(out.shape):
        above, below = below, below // size
        if step % below == 0 and above % span == 0 and x.numel() == out.numel():
            return Samples(axis, above // span, step // below)
    return None


@_follows("transpose swapaxes swapdims t T mT permute movedim moveaxis adjoint")
@_follows("sum mean amax amin prod std var logsumexp norm vector_norm any all argmax argmin nansum")
@_follows("max min median")
def _where_it_went(operation, out):
    """Axes that are permuted or reduced, found on a small array of distinct sizes."""
    x = operation.args[0]
    if any(isinstance(a, torch.Tensor) for a in operation.args[1:]):
        return _elementwise(operation, out)  # max and min of two tensors
    where = operation.label_of(x)
    sizes = range(2, 2 + x.ndim)
    probe = torch.zeros(*sizes, device="cpu")  # on meta, some operations import the compiler
    probe = operation.function(probe, *operation.args[1:], **operation.kwargs)
    if not isinstance(probe, torch.Tensor):
        probe = probe[0]
    return where._replace(axis=list(probe.shape).index(sizes[where.axis]))


@_follows("softmax log_softmax softmin cumsum cumprod logcumsumexp sort argsort topk flip roll")
@_follows("glu kthvalue renorm normalize cosine_similarity")
def _along_other_axes(operation, out):
    x = operation.args[0]
    where, name = operation.label_of(x), operation.function.__name__
    position = {"topk": 2, "kthvalue": 2, "roll": 2, "normalize": 2, "cosine_similarity": 2}
    default = {"normalize": 1, "cosine_similarity": 1}.get(name, None if "softm" in name else -1)
    dims = operation.get(position.get(name, 1), "dims" if name in ("flip", "roll") else "dim")
    if name == "flip" and isinstance(dims, int):
        dims = operation.args[1:]  # x.flip(0, 1)
    dims = default if dims is None else dims
    taken = [d % x.ndim for d in ((dims,) if isinstance(dims, int) else dims)]
    alike = {(y.ndim, own) for y, own in _labelled(operation, operation.args)}
    if where.axis in taken or len(alike) > 1:
        return None
    shift = sum(d < where.axis for d in taken) if out.ndim < x.ndim else 0
    return where._replace(axis=where.axis - shift)


@_follows("chunk split split_with_sizes tensor_split narrow unfold index_select")
@_follows("select unbind")
def _pieces(operation, out):
    x = operation.args[0]
    where = operation.label_of(x)
    name = operation.function.__name__
    first = name in ("select", "unbind", "narrow", "unfold", "index_select")
    axis = operation.get(1 if first else 2, "dim", 0) % x.ndim
    if name == "unfold" and out.ndim == x.ndim + 1:
        return None if axis == where.axis else where
    if name == "unfold":  # the function, on images
        return _images(operation, out)
    return None if axis == where.axis else _shifted(where, axis, out.ndim - x.ndim)


def _shifted(where, axis, change):
    return where._replace(axis=where.axis + (change if axis < where.axis else 0))


@_follows("cat concat concatenate stack")
def _joined(operation, out):
    parts = operation.get(0, "tensors")
    found = {where for _, where in _labelled(operation, parts)}
    axis = operation.get(1, "dim", 0) % out.ndim
    where = found.pop()
    change = out.ndim - parts[0].ndim
    if found or (not change and where.axis == axis):
        return None
    return where._replace(axis=where.axis + (1 if change and axis <= where.axis else 0))


@_follows("expand expand_as broadcast_to")
def _expanded(operation, out):
    x = operation.args[0]
    return aligned([(x, operation.label_of(x))], out.ndim)


@_follows("repeat tile")
def _repeated(operation, out):
    x = operation.args[0]
    where = aligned([(x, operation.label_of(x))], out.ndim)
    times = out.shape[where.axis] // x.shape[operation.label_of(x).axis]
    return where._replace(outer=where.outer * times)


@_follows("repeat_interleave")
def _repeated_one_by_one(operation, out):
    x, times = operation.args[0], operation.get(1, "repeats")
    where, axis = operation.label_of(x), operation.get(2, "dim") % x.ndim
    if axis != where.axis:
        return where
    return where._replace(inner=where.inner * times) if isinstance(times, int) else None


@_follows("__getitem__")
def _item(operation, out):
    x, index = operation.args
    where = operation.label_of(x)
    index = index if isinstance(index, tuple) else (index,)
    if any(isinstance(i, (torch.Tensor, list)) for i in index):
        return _advanced_item(operation, x, index, where)
    taken = sum(i is not None and i is not Ellipsis for i in index)
    if Ellipsis not in index:
        index = (*index, Ellipsis)
    at = index.index(Ellipsis)
    index = (*index[:at], *[slice(None)] * (x.ndim - taken), *index[at + 1 :])
    axis = position = 0
    for i in index:
        if i is None:
            position += 1
            continue
        if axis == where.axis:
            whole = isinstance(i, slice) and i.indices(x.shape[axis]) == (0, x.shape[axis], 1)
            return where._replace(axis=position) if whole else None
        axis, position = axis + 1, position + (not isinstance(i, int))
    return None


def _advanced_item(operation, x, index, where):
    """Entries picked by tensors: one of each sample in order, or along other axes only."""
    tensors = [i for i in index if isinstance(i, torch.Tensor)]
    if any(i.dtype == torch.bool for i in tensors) or where[1:] != (1, 1):
        return None
    own = [operation.label_of(i) for i in tensors]
    if where.axis == 0 and isinstance(index[0], torch.Tensor):
        everyone = torch.arange(operation.n, device=x.device)
        simple = all(isinstance(i, (torch.Tensor, int)) for i in index)
        vectors = all(i.ndim == 1 for i in tensors) and set(own) <= {CONSTANT, Samples(0)}
        if simple and vectors and torch.equal(index[0], everyone):
            return Samples(0)
        return None
    plain = all(i == slice(None) for i in index[:-1] if not isinstance(i, torch.Tensor))
    last_only = isinstance(index[-1], torch.Tensor) and len(tensors) == 1
    first = where.axis < len(index) - 1 and set(own) == {CONSTANT}
    return where if plain and last_only and first else None


@_follows("matmul bmm mm addmm baddbmm")
def _matmul(operation, out):
    *added, a, b = operation.args
    ndim = out.ndim + (a.ndim == 1) + (b.ndim == 1)
    found = {w._replace(axis=w.axis + out.ndim - x.ndim) for x, w in _labelled(operation, added)}
    for x, where in _labelled(operation, (a, b)):
        from_end = x.ndim - where.axis
        free = 2 if x is a else 1  # the axis of a matrix that is not summed over
        if x.ndim < 2 or (from_end < 3 and from_end != free):
            return None
        after = a.ndim == 1 and from_end == 1  # the vector was before it
        found.add(where._replace(axis=ndim - from_end - after))
    return found.pop() if len(found) == 1 else None


@_follows("einsum")
def _einsum(operation, out):
    equation, *operands = operation.args
    operands = operands[0] if isinstance(operands[0], (list, tuple)) else operands
    left, right = equation.replace(" ", "").split("->")
    letters = {
        (terms[where.axis], where[1:])
        for terms, x, where in (
            (t, x, operation.label_of(x)) for t, x in zip(left.split(","), operands)
        )
        if where != CONSTANT
    }
    ((letter, sizes),) = letters
    return None if "." in equation else Samples(right.index(letter), *sizes)


@_follows("scaled_dot_product_attention")
def _attention(operation, out):
    found = {w for _, w in _labelled(operation, operation.args[:3])}
    where = found.pop()
    return where if not found and where.axis < out.ndim - 2 else None


@_follows("linear layer_norm rms_norm pad embedding one_hot gather scatter scatter_add")
def _leading(operation, out):
    """Operations along the last axes."""
    x, name = operation.args[0], operation.function.__name__
    ((_, where),) = {
        (0, w) for _, w in _labelled(operation, (x, *operation.args[1:])) if w != CONSTANT
    }
    kept = {
        "linear": lambda: 1,
        "layer_norm": lambda: len(operation.get(1, "normalized_shape")),
        "rms_norm": lambda: len(operation.get(1, "normalized_shape")),
        "pad": lambda: len(operation.get(1, "pad")) // 2,
        "embedding": lambda: 0,
        "one_hot": lambda: 0,
    }.get(name)
    if kept is None:
        return where if operation.get(1, "dim") % x.ndim != where.axis else None
    return where if where.axis < x.ndim - kept() else None


@_follows(DIMENSION_FREE)
def _images(operation, out):
    """Operations on images or channels, samples first."""
    x = operation.args[0]
    return operation.label_of(x) if operation.label_of(x).axis == 0 and x.ndim >= 2 else None


@_follows("batch_norm")
def _batch_norm(operation, out):
    own_statistics = operation.get(5, "training", False)
    return None if own_statistics else _images(operation, out)


@_follows("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d")
@_follows("max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d")
@_follows("adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d lp_pool1d lp_pool2d")
@_follows("adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d")
def _spatial(operation, out):
    x, n_axes = operation.args[0], int(operation.function.__name__[-2])
    return _images(operation, out) if x.ndim == n_axes + 2 else None
