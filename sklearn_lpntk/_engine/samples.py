"""Where the samples are: the axis of a tensor that runs over them, followed through operations.

A label says of a tensor of whom each slice along an axis is: its gradients lead to that sample
and to constants only. An operation keeps that up or it does not: what is not known to keep it
gives `UNKNOWN`, and so does whatever is computed from it. So labels prove to whom a row belongs:
logits that carry one have seen nothing but operations that leave samples apart, or put them where
an index says.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from .names import DIMENSION_FREE, ELEMENTWISE


class Samples(NamedTuple):
    """Along ``axis``, of length ``outer * n * inner``, entry j is of sample ``j // inner % n``.

    Where rows were picked or sorted, ``owners`` names the sample of every entry instead.
    """

    axis: int
    outer: int = 1
    inner: int = 1
    owners: tuple | None = None

    def size(self, n):
        """Length of the axis."""
        return self.outer * n * self.inner if self.owners is None else len(self.owners)

    def everyone(self, n):
        """The sample of every entry."""
        if self.owners is not None:
            return self.owners
        return tuple(j // self.inner % n for j in range(self.size(n)))

    def repeated(self, outer, inner):
        """The axis so many times over, each entry so many times."""
        if self.owners is None:
            return self._replace(outer=self.outer * outer, inner=self.inner * inner)
        each = [owner for owner in self.owners for _ in range(inner)]
        return self._replace(owners=tuple(each * outer))

    def picked(self, index, n):
        """Some entries, in the order of an index."""
        everyone = self.everyone(n)
        return owned(self.axis, [everyone[i] for i in index], n)


def owned(axis, owners, n):
    """A label by the sample of every entry."""
    owners, times = tuple(owners), max(1, len(owners) // n)
    for simple in (Samples(axis, outer=times), Samples(axis, inner=times)):
        if simple.size(n) == len(owners) and simple.everyone(n) == owners:
            return simple
    return Samples(axis, owners=owners)


CONSTANT, UNKNOWN = "constant", "unknown"
SINGLE = Samples(-1)  # all of a batch of one sample, whatever the axes


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
    fits = isinstance(found, Samples) and 0 <= found.axis < out.ndim
    return found if fits and out.shape[found.axis] == found.size(operation.n) else UNKNOWN


def _followed(name, operation, tensors):
    """Tensors that count: an index leads no gradient, it is known where it picks rows from."""
    if name not in ("__getitem__", "index_select", "index_put", "index_add", "index_copy"):
        return tensors
    x = operation.args[0]
    if operation.label_of(x) in (CONSTANT, UNKNOWN) and name in ("__getitem__", "index_select"):
        return tensors
    values = [t for t in tensors if t.is_floating_point() or t.is_complex()]
    return [x, *(t for t in values if t is not x)]


def by_sample(x, where, n, kept):
    """A tensor as (n, T, ...): its samples first, the last ``kept`` axes as they are."""
    tail = x.shape[x.ndim - kept :] if kept else ()
    if where.axis < 0:
        return x.reshape(1, -1, *tail)
    if where.owners is not None:
        x = _by_owner(x.movedim(where.axis, 0), where.owners, n)
    elif where.axis or where.outer > 1:
        x = x.unflatten(where.axis, (where.outer, n, where.inner)).movedim(where.axis + 1, 0)
    return x.reshape(n, -1, *tail)


def _by_owner(x, owners, n):
    """Rows as (n, most of one sample, ...), zero where a sample has fewer."""
    count, places = [0] * n, []
    for owner in owners:
        places.append(count[owner])
        count[owner] += 1
    out = x.new_zeros(n, max(count), *x.shape[1:])
    out[list(owners), places] = x
    return out


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


def _follows(names, *, several=False):
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


def tensors_in(value):
    """All tensors in nested arguments: a list."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return []
    return [t for one in value for t in tensors_in(one)]


def _labelled(operation, tensors):
    """Those among some tensors that have an axis of samples, with their labels."""
    pairs = [(t, operation.label_of(t)) for t in tensors if isinstance(t, torch.Tensor)]
    return [(t, where) for t, where in pairs if where != CONSTANT]


def aligned(pairs, ndim):
    """The common label of tensors that are broadcast to ``ndim`` axes, or None."""
    found = {w._replace(axis=w.axis + ndim - t.ndim) for t, w in pairs}
    return found.pop() if len(found) == 1 else None


@_follows(ELEMENTWISE, several=True)
def _elementwise(operation, out):
    values = (*operation.args, *operation.kwargs.values())
    if len(values) == 1 and operation.function.__name__ == "where":
        return None  # positions, of all samples in a row
    return aligned(_labelled(operation, values), out.ndim)


@_follows("view reshape flatten unflatten squeeze unsqueeze _unsafe_view ravel")
@_follows("view_as reshape_as", several=True)  # of the other, only the shape
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


@_follows("transpose swapaxes swapdims t T mT permute movedim moveaxis adjoint")
@_follows("sum mean amax amin prod std var logsumexp norm vector_norm any all argmax argmin nansum")
@_follows("median")
@_follows("max min", several=True)
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
@_follows("glu kthvalue renorm normalize")
@_follows("cosine_similarity", several=True)
def _along_other_axes(operation, out):
    x = operation.args[0]
    where, name = operation.label_of(x), operation.function.__name__
    second = ("topk", "kthvalue", "roll", "renorm", "normalize", "cosine_similarity")
    many = name in ("flip", "roll")
    default = {"normalize": 1, "cosine_similarity": 1}.get(name)
    default = -1 if name in ("sort", "argsort", "topk", "glu", "kthvalue") else default
    dims = operation.get(2 if name in second else 1, "dims" if many else "dim")
    if name == "flip" and isinstance(dims, int):
        dims = operation.args[1:]  # x.flip(0, 1)
    dims = default if dims is None else dims
    if dims is None:
        return None  # over the ends of rows
    taken = [d % x.ndim for d in ((dims,) if isinstance(dims, int) else dims)]
    alike = {(y.ndim, own) for y, own in _labelled(operation, operation.args)}
    if where.axis in taken or len(alike) > 1:
        return None
    shift = sum(d < where.axis for d in taken) if out.ndim < x.ndim else 0
    return where._replace(axis=where.axis - shift)


@_follows("chunk split split_with_sizes tensor_split narrow unfold select unbind")
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
    if change or not out._is_view():
        return None
    start = (out.storage_offset() - x.storage_offset()) // max(1, x.stride(axis))
    return where.picked(range(start, start + out.shape[axis]), operation.n)


@_follows("cat concat concatenate stack", several=True)
def _joined(operation, out):
    parts = operation.get(0, "tensors")
    labels = [where for _, where in _labelled(operation, parts)]
    where, axis, change = labels[0], operation.get(1, "dim", 0) % out.ndim, out.ndim - parts[0].ndim
    if not change and {w.axis for w in labels} == {axis}:  # one after the other
        n = operation.n
        owners = [owner for w in labels for owner in w.everyone(n)]
        return owned(axis, owners, n) if len(labels) == len(parts) else None
    if set(labels) != {where} or (not change and where.axis == axis):
        return None
    return where._replace(axis=where.axis + (1 if change and axis <= where.axis else 0))


@_follows("expand broadcast_to")
@_follows("expand_as", several=True)
def _expanded(operation, out):
    x = operation.args[0]
    return aligned([(x, operation.label_of(x))], out.ndim)


@_follows("repeat tile")
def _repeated(operation, out):
    x = operation.args[0]
    where = aligned([(x, operation.label_of(x))], out.ndim)
    times = out.shape[where.axis] // x.shape[operation.label_of(x).axis]
    return where.repeated(times, 1)


@_follows("repeat_interleave")
def _repeated_one_by_one(operation, out):
    x, times = operation.args[0], operation.get(1, "repeats")
    where, axis = operation.label_of(x), operation.get(2, "dim") % x.ndim
    if axis != where.axis:
        return where
    return where.repeated(1, times) if isinstance(times, int) else None


@_follows("__getitem__", several=True)
def _item(operation, out):
    x, index = operation.args
    where = operation.label_of(x)
    entries = _entries(index, x.ndim)
    tensors = [i for i, _, _ in entries if isinstance(i, torch.Tensor)]
    axis = position = 0
    for i, taken, given in entries:
        if axis <= where.axis < axis + taken:
            rows = _rows_of(i, where.axis - axis, x.shape[where.axis], len(tensors))
            if rows is None:
                return None
            if rows != range(x.shape[where.axis]):
                where = where.picked(rows, operation.n)
            return where._replace(axis=position)
        # of several tensors, the first makes the axis that they share
        again = isinstance(i, torch.Tensor) and i is not tensors[0]
        axis, position = axis + taken, position + (0 if again else given)
    return None


def _entries(index, ndim):
    """Parts of an index that cover all axes: (part, axes that it takes, axes that it gives)."""
    index = [*index] if isinstance(index, tuple) else [index]
    index = [torch.as_tensor(i) if isinstance(i, list) else i for i in index]
    if any(isinstance(i, bool) for i in index):
        raise TypeError("An index of one boolean.")
    taken = [0 if i is None or i is Ellipsis else _n_axes(i) for i in index]
    missing = [(slice(None), 1, 1)] * (ndim - sum(taken))
    out, filled = [], False
    for i, axes in zip(index, taken):
        if i is Ellipsis:
            out, filled = out + missing, True
        elif isinstance(i, torch.Tensor):
            out.append((i, axes, i.ndim if i.dtype != torch.bool else 1))
        else:
            out.append((i, axes, int(i is None or isinstance(i, slice))))
    return out if filled else out + missing


def _n_axes(i):
    return i.ndim if isinstance(i, torch.Tensor) and i.dtype == torch.bool else 1


def _rows_of(i, offset, size, n_tensors):
    """Entries that a part of an index picks along the axis of the samples; None if not a list."""
    if isinstance(i, slice):
        return range(*i.indices(size))
    if not isinstance(i, torch.Tensor) or (n_tensors > 1 and (i.ndim, i.dtype) != (1, torch.int64)):
        return None
    if i.dtype == torch.bool:
        return i.nonzero()[:, offset].tolist()
    return i.tolist() if i.ndim == 1 else None


@_follows("index_select", several=True)
def _selected(operation, out):
    x, axis, index = operation.args
    where = operation.label_of(x)
    return where.picked(index.tolist(), operation.n) if axis % x.ndim == where.axis else where


@_follows("index_put index_add index_copy", several=True)
def _placed(operation, out):
    x, *given = operation.args
    axis, index, value = given[:3] if isinstance(given[0], int) else (0, *given[:2])
    if isinstance(index, torch.Tensor):
        index = (*[slice(None)] * (axis % x.ndim), index)
    return assigned(x, tuple(index), value, operation)


def assigned(x, index, value, operation):
    """The label of ``x`` after ``x[index] = value``: whose rows they were, they must be."""
    mine, n = operation.label_of(x), operation.n
    own = operation.label_of(value) if isinstance(value, torch.Tensor) else CONSTANT
    if own == CONSTANT:
        return mine
    if UNKNOWN in (own, mine) or n == 1:
        return UNKNOWN
    candidates = [Samples(axis) for axis in range(x.ndim)] if mine == CONSTANT else [mine]
    for where in candidates:
        if x.shape[where.axis] == where.size(n):
            shown = Operation(None, (x, index), {}, lambda t, w=where: w, n)
            part = x[index]
            if label("__getitem__", shown, part, [x]) == aligned([(value, own)], part.ndim):
                return where
    return UNKNOWN


@_follows("matmul bmm mm addmm baddbmm", several=True)
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


@_follows("einsum", several=True)
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


@_follows("scaled_dot_product_attention", several=True)
def _attention(operation, out):
    values = (*operation.args, *operation.kwargs.values())
    where = aligned(_labelled(operation, values), out.ndim)
    return where if where is not None and where.axis < out.ndim - 2 else None


@_follows("linear layer_norm rms_norm pad embedding one_hot")
@_follows("gather scatter scatter_add", several=True)
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
