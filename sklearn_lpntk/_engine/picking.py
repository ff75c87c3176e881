"""Operations that pick rows, sort them, or put them back: whose they are, the index says."""

import torch

from .following import Operation, follows, label
from .samples import CONSTANT, UNKNOWN, Samples, aligned, owned


@follows("__getitem__", several=True)
def _item(operation, out):
    x, index = operation.args
    where = operation.label_of(x)
    if where == CONSTANT:  # one row for every entry of the index
        return operation.label_of(index) if index.dtype == torch.int64 else None
    kinds = {type(i) for i in _parts(index)}
    if kinds <= {int, slice, type(None), type(Ellipsis)}:
        return _sliced(x, index, where, operation.n)
    numbers = torch.arange(x.shape[where.axis], device=x.device)
    numbers = numbers.view([-1 if a == where.axis else 1 for a in range(x.ndim)]).expand(x.shape)
    picked = numbers[index]  # of every entry, where it was
    for axis in range(picked.ndim):
        rows = picked.movedim(axis, 0).flatten(1)
        if rows.numel() and (rows == rows[:, :1]).all():
            return where.picked(rows[:, 0].tolist(), operation.n)._replace(axis=axis)
    return None


def _parts(index):
    return index if isinstance(index, tuple) else (index,)


def _sliced(x, index, where, n):
    """The label after an index of slices and integers alone."""
    parts = [*_parts(index)]
    missing = x.ndim - sum(i is not None and i is not Ellipsis for i in parts)
    at = next((k for k, i in enumerate(parts) if i is Ellipsis), len(parts))
    parts[at : at + 1] = [slice(None)] * missing
    axis = position = 0
    for i in parts:
        if i is not None and axis == where.axis:
            rows = range(x.shape[axis])[i]
            if isinstance(rows, int):
                return None
            where = where if len(rows) == x.shape[axis] else where.picked(rows, n)
            return where._replace(axis=position)
        axis += i is not None
        position += not isinstance(i, int)
    return None


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
