"""Where the samples are: the axis of a tensor that runs over them, followed through operations.

A label says of a tensor of whom each slice along an axis is: its gradients lead to that sample
and to constants only. An operation keeps that up or it does not: what is not known to keep it
gives `UNKNOWN`, and so does whatever is computed from it. So labels prove to whom a row belongs:
logits that carry one have seen nothing but operations that leave samples apart, or put them where
an index says.
"""

from typing import NamedTuple

import torch


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


def aligned(pairs, ndim):
    """The common label of tensors that are broadcast to ``ndim`` axes, or None."""
    found = {w._replace(axis=w.axis + ndim - t.ndim) for t, w in pairs}
    return found.pop() if len(found) == 1 else None


def tensors_in(value):
    """All tensors in nested arguments: a list."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return []
    return [t for one in value for t in tensors_in(one)]
