"""How operations keep samples apart, each by its name: what the label of their output is."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from .names import CREATED, DIMENSION_FREE, ELEMENTWISE, is_in_place
from .samples import CONSTANT, SINGLE, UNKNOWN, Samples, aligned, owned, tensors_in

_NUMPYS = {"dim": "axis", "dims": "axis"}  # names that torch takes, too


class Operation(NamedTuple):
    """An operation that took place: what its label is read off."""

    function: Callable
    args: tuple
    kwargs: dict
    label_of: Callable  # of a tensor
    n: int

    def get(self, position, name, default=None):
        """An argument by position or name."""
        for known in (name, _NUMPYS.get(name)):
            if known in self.kwargs:
                return self.kwargs[known]
        return self.args[position] if len(self.args) > position else default


def label(name, operation, out, tensors):
    """The label of one output of an operation, given all tensors among its arguments."""
    labels = {operation.label_of(t) for t in _followed(name, operation, tensors)}
    if labels <= {CONSTANT} or name in CREATED:
        return CONSTANT
    if UNKNOWN in labels:
        return UNKNOWN
    if operation.n == 1:
        return SINGLE
    if _is_unforeseen(name, operation):
        return UNKNOWN
    try:
        found = _FOLLOWED[name](operation, out) if name in _FOLLOWED else None
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        found = None  # arguments in a form that is not foreseen
    fits = isinstance(found, Samples) and 0 <= found.axis < out.ndim
    return found if fits and out.shape[found.axis] == found.size(operation.n) else UNKNOWN


def _is_unforeseen(name, operation):
    """Whether an operation has arguments by names, or writes to some, in a form nobody reads."""
    named = tensors_in(operation.kwargs)
    if name not in _BY_NAME and any(operation.label_of(t) != CONSTANT for t in named):
        return True
    writes = is_in_place(operation.function) and name not in _IN_PLACE
    return writes or "out" in operation.kwargs


def _followed(name, operation, tensors):
    """Tensors that count: an index leads no gradient, and whose the rows are is read off it.

    Of those picked from a constant, it says so itself.
    """
    if name not in _BY_INDEX or not operation.args:
        return tensors
    first, *others = tensors
    if operation.label_of(first) == CONSTANT and name in _PICKS:
        return [first, *(t for t in others if operation.label_of(t) != UNKNOWN)]
    return [first, *(t for t in others if t.is_floating_point())]


_PICKS = {"__getitem__", "index_select", "_pack_padded_sequence", "_pad_packed_sequence"}
_BY_INDEX = _PICKS | {"index_put", "index_add", "index_copy"}
_BY_NAME = {*ELEMENTWISE.split(), "scaled_dot_product_attention"}
_IN_PLACE = {*ELEMENTWISE.split(), "index_put", "index_add", "index_copy", "addmm", "baddbmm"}


# -- operations, by name ------------------------------------------------------------------

_FOLLOWED = {}


def follows(names, *, several=False):
    """Register what follows operations: unless so said, only of their first argument."""

    def register(function):
        follower = function if several else _of_the_first(function)
        _FOLLOWED.update(dict.fromkeys(names.split(), follower))
        return function

    return register


def _of_the_first(function):
    def follow(operation, out):
        others = tensors_in((operation.args[1:], operation.kwargs))
        alone = all(operation.label_of(t) == CONSTANT for t in others)
        return function(operation, out) if alone else None

    return follow


def _labelled(operation, tensors):
    """Those among some tensors that have an axis of samples, with their labels."""
    pairs = [(t, operation.label_of(t)) for t in tensors if isinstance(t, torch.Tensor)]
    return [(t, where) for t, where in pairs if where != CONSTANT]


@follows(ELEMENTWISE, several=True)
def _elementwise(operation, out):
    values = (*operation.args, *operation.kwargs.values())
    if len(values) == 1 and operation.function.__name__ == "where":
        return None  # positions, of all samples in a row
    return aligned(_labelled(operation, values), out.ndim)


@follows("view reshape flatten unflatten squeeze unsqueeze _unsafe_view ravel")
@follows("view_as reshape_as", several=True)  # of the other, only the shape
def _reshape(operation, out):
    x = operation.args[0]
    where, shape = operation.label_of(x), x.shape
    # a pattern that repeats has n entries, one that does not is the whole axis
    inner, n = (where.inner, operation.n) if where.owners is None else (1, len(where.owners))
    step = inner * math.prod(shape[where.axis + 1 :])  # from one entry to the next
    span = step * n
    below = math.prod(out.shape)
    for axis, size in enumerate(out.shape):
        above, below = below, below // size
        if step % below == 0 and above % span == 0 and x.numel() == out.numel():
            found = Samples(axis, owners=where.owners)
            return found.repeated(above // span, step // below)
    return None


@follows("transpose swapaxes swapdims t T mT permute movedim moveaxis adjoint")
@follows("sum mean amax amin prod std var logsumexp norm vector_norm any all argmax argmin nansum")
@follows("median")
@follows("max min", several=True)
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


@follows("softmax log_softmax softmin cumsum cumprod logcumsumexp sort argsort topk flip roll")
@follows("glu kthvalue normalize")
def _along_other_axes(operation, out):
    x = operation.args[0]
    where, name = operation.label_of(x), operation.function.__name__
    second = ("topk", "kthvalue", "roll", "normalize")
    many = name in ("flip", "roll")
    default = {"normalize": 1}.get(name)
    default = -1 if name in ("sort", "argsort", "topk", "glu", "kthvalue") else default
    dims = operation.get(2 if name in second else 1, "dims" if many else "dim")
    if name == "flip" and isinstance(dims, int):
        dims = operation.args[1:]  # x.flip(0, 1)
    dims = default if dims is None else dims
    if dims is None:
        return None  # over the ends of rows
    taken = [d % x.ndim for d in ((dims,) if isinstance(dims, int) else dims)]
    if where.axis in taken or not taken:
        return None
    shift = sum(d < where.axis for d in taken) if out.ndim < x.ndim else 0
    return where._replace(axis=where.axis - shift)


@follows("chunk split split_with_sizes tensor_split narrow unfold select unbind")
def _pieces(operation, out):
    x = operation.args[0]
    where = operation.label_of(x)
    name = operation.function.__name__
    first = name in ("select", "unbind", "narrow", "unfold")
    axis = operation.get(1 if first else 2, "dim", 0) % x.ndim
    if name == "unfold" and out.ndim == x.ndim + 1:
        return None if axis == where.axis else where
    if name == "unfold":  # the function, on images
        return _images(operation, out)
    change = out.ndim - x.ndim
    if axis != where.axis:
        return where._replace(axis=where.axis + (change if axis < where.axis else 0))
    if change or not out._is_view() or not x.stride(axis):
        return None
    start = (out.storage_offset() - x.storage_offset()) // x.stride(axis)
    return where.picked(range(start, start + out.shape[axis]), operation.n)


@follows("cat concat concatenate stack", several=True)
def _joined(operation, out):
    parts = operation.get(0, "tensors")
    labels = [where for _, where in _labelled(operation, parts)]
    if len({t.ndim for t in parts}) > 1:
        return None  # an empty one may have fewer axes
    where, axis, change = labels[0], operation.get(1, "dim", 0) % out.ndim, out.ndim - parts[0].ndim
    if not change and {w.axis for w in labels} == {axis}:  # one after the other
        n = operation.n
        owners = [owner for w in labels for owner in w.everyone(n)]
        return owned(axis, owners, n) if len(labels) == len(parts) else None
    if set(labels) != {where} or (not change and where.axis == axis):
        return None
    return where._replace(axis=where.axis + (1 if change and axis <= where.axis else 0))


@follows("expand broadcast_to")
@follows("expand_as", several=True)
def _expanded(operation, out):
    x = operation.args[0]
    return aligned([(x, operation.label_of(x))], out.ndim)


@follows("repeat tile")
def _repeated(operation, out):
    x = operation.args[0]
    where = aligned([(x, operation.label_of(x))], out.ndim)
    times = out.shape[where.axis] // x.shape[operation.label_of(x).axis]
    return where.repeated(times, 1)


@follows("repeat_interleave")
def _repeated_one_by_one(operation, out):
    x, times = operation.args[0], operation.get(1, "repeats")
    where, axis = operation.label_of(x), operation.get(2, "dim") % x.ndim
    if axis != where.axis:
        return where
    return where.repeated(1, times) if isinstance(times, int) else None


@follows("matmul bmm mm addmm baddbmm", several=True)
def _matmul(operation, out):
    *added, a, b = operation.args
    ndim = out.ndim + (a.ndim == 1) + (b.ndim == 1)
    found = {w._replace(axis=w.axis + out.ndim - x.ndim) for x, w in _labelled(operation, added)}
    for free, x in ((2, a), (1, b)):  # the axis of a matrix that is not summed over, from the end
        for _, where in _labelled(operation, [x]):
            from_end = x.ndim - where.axis
            if x.ndim < 2 or (from_end < 3 and from_end != free):
                return None
            after = a.ndim == 1 and from_end == 1  # the vector was before it
            found.add(where._replace(axis=ndim - from_end - after))
    return found.pop() if len(found) == 1 else None


@follows("einsum", several=True)
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


@follows("scaled_dot_product_attention", several=True)
def _attention(operation, out):
    values = (*operation.args, *operation.kwargs.values())
    where = aligned(_labelled(operation, values), out.ndim)
    return where if where is not None and where.axis < out.ndim - 2 else None


@follows("linear layer_norm rms_norm pad embedding one_hot")
@follows("gather scatter scatter_add", several=True)
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


@follows("cross_entropy nll_loss", several=True)
def _loss(operation, out):
    """Losses of rows: classes lie along the second axis, and nothing is added up."""
    scores, target = (operation.get(*which) for which in ((0, "input"), (1, "target")))
    pairs = _labelled(operation, (scores, target))
    alike = len({where for _, where in pairs}) == 1 and pairs[0][1].axis == 0
    apart = operation.get(6, "reduction") == "none" and scores.ndim > 1
    older = [operation.get(3, "size_average"), operation.get(5, "reduce")]
    return pairs[0][1] if alike and apart and older == [None, None] else None


@follows("prelu")
def _by_channel(operation, out):
    return operation.label_of(operation.args[0])


@follows(DIMENSION_FREE)
def _images(operation, out):
    """Operations on images or channels, samples first."""
    x = operation.args[0]
    first = operation.label_of(x).axis == 0 and x.ndim >= 2
    bags = operation.function.__name__ == "embedding_bag" and x.is_floating_point()  # the table
    return operation.label_of(x) if first and not bags else None


@follows("batch_norm")
def _batch_norm(operation, out):
    own_statistics = operation.get(5, "training", False)
    return None if own_statistics else _images(operation, out)


@follows("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d")
@follows("max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d")
@follows("adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d lp_pool1d lp_pool2d")
@follows("adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d")
def _spatial(operation, out):
    x, n_axes = operation.args[0], int(operation.function.__name__[-2])
    return _images(operation, out) if x.ndim == n_axes + 2 else None
