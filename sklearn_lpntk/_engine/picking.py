"""Operations that pick rows, sort them, or put them back: whose they are, the index says."""

import torch

from .following import Operation, follows, label
from .samples import CONSTANT, UNKNOWN, Samples, aligned, owned


@follows("__getitem__", several=True)
def _item(operation, out):
    x, index = operation.args
    where = operation.label_of(x)
    entries = _entries(index, x.ndim)
    tensors = [i for i, _, _ in entries if isinstance(i, torch.Tensor)]
    axis = position = 0
    for i, taken, given in entries:
        if where == CONSTANT:
            if isinstance(i, torch.Tensor):
                own = operation.label_of(i)
                whole = len(tensors) == 1 and i.dtype != torch.bool
                return own._replace(axis=position + own.axis) if whole else None
            position += given
            continue
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


@follows("index_select", several=True)
def _selected(operation, out):
    x, axis, index = operation.args
    where = operation.label_of(x)
    if where == CONSTANT:
        return operation.label_of(index)._replace(axis=axis % x.ndim)
    return where.picked(index.tolist(), operation.n) if axis % x.ndim == where.axis else where


@follows("_pack_padded_sequence", several=True)
def _packed(operation, out):
    x, lengths, batch_first = operation.args
    where = operation.label_of(x)
    if not out.is_floating_point() or where.axis != (0 if batch_first else 1):
        return None  # how many samples there are at each time
    everyone, lengths = where.everyone(operation.n), lengths.tolist()
    return owned(
        0, [s for t in range(lengths[0]) for s, k in zip(everyone, lengths) if t < k], operation.n
    )


@follows("_pad_packed_sequence", several=True)
def _padded(operation, out):
    x, sizes, batch_first = operation.args[:3]
    if not out.is_floating_point():
        return None
    owners, sizes = operation.label_of(x).everyone(operation.n), sizes.tolist()
    expected = [s for size in sizes for s in owners[:size]]
    return (
        owned(0 if batch_first else 1, owners[: sizes[0]], operation.n)
        if expected == [*owners]
        else None
    )


@follows("index_put index_add index_copy", several=True)
def _placed(operation, out):
    x, *given = operation.args
    axis, index, value = given[:3] if isinstance(given[0], int) else (0, *given[:2])
    if isinstance(index, torch.Tensor):
        index = (*[slice(None)] * (axis % x.ndim), index)
    return assigned(x, tuple(index), value, operation)


def after_assignment(operation):
    """The label of ``x`` after ``x[index] = value``."""
    x, index, value = operation.args
    try:
        return assigned(x, index, value, operation)
    except (LookupError, RuntimeError, TypeError, ValueError):
        return UNKNOWN  # arguments in a form that is not foreseen


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
