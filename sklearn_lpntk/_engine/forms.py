"""Which form a factor takes: kept as outer products, as indices, or written out."""

import torch

from .factors import Dense, Outer, is_written_faster
from .sparse import Lookup, Unit
from .tied import Tied

LARGER = 2  # times the memory of the vectors that a sum of their products may take, written out


def alike(factors):
    """The factors of one layer in one form: written out where some of them are.

    Batches of another length may have found the other form cheaper.
    """
    factors = _without_units(factors) if len(set(map(type, factors))) > 1 else factors
    if len(set(map(type, factors))) == 1:
        return factors
    return [factor.materialise() for factor in factors]


def _without_units(factors):
    return [f.plain() if isinstance(f, Unit) else f for f in factors]


def outer_factor(a, g, *, dense=None, room=None):
    """The factor of ``a: (n, T, D)`` and ``g: (n, R, T, O)``.

    ``dense=None`` chooses what costs fewer multiplications a pair of samples, where it takes no
    more than twice the memory; the product is written into ``room``, where that has its size.
    """
    n, n_cotangents, n_positions, width = g.shape
    depth = a.shape[2]
    if n_positions == 1 < n_cotangents == width and _are_units(g[:, :, 0]):
        return Unit(a.transpose(0, 1).contiguous(), n_cotangents)
    if dense is None:
        numbers = n_positions * (depth + n_cotangents * width)
        dense = is_written_faster(n_positions**2, width, depth)
        dense = dense and n_cotangents * depth * width <= LARGER * numbers
    if dense:
        g = g.transpose(2, 3).reshape(n, n_cotangents * width, n_positions)
        shape = n * n_cotangents, width * depth
        if room is None or (room.shape, room.dtype) != (shape, g.dtype):
            room = g.new_empty(shape)
        torch.bmm(g, a, out=room.view(len(g), -1, depth))
        return Dense(room, n_cotangents, (width, depth))
    return Outer(a.transpose(0, 1).contiguous(), _position_major(g), n_cotangents)


def _are_units(g):
    """Whether the scalars of every sample have the unit vectors as their gradients."""
    if g.device.type == "meta":
        return False
    return bool((g == torch.eye(len(g[0]), dtype=g.dtype, device=g.device)).all())


def lookup_factor(index, g, n_rows, *, dense):
    """The factor of an embedding: ``index: (n, T)`` into a table of ``n_rows`` rows."""
    n_positions, width = g.shape[2:]
    factor = Lookup(index.T.contiguous(), _position_major(g), g.shape[1], n_rows)
    if dense is None:
        cheaper = n_rows * width <= n_positions**2 * (width + 1)
        dense = cheaper and n_rows <= 8 * n_positions  # a table's gradient is mostly zeros
    return factor.materialise() if dense else factor


def tied_factor(layer, table):
    """The factor of a matrix that is a layer's (`Positions`) and a table's (`Rows`)."""
    a, g = layer.a.transpose(0, 1).contiguous(), _position_major(layer.g)
    return Tied(a, g, table.index.T.contiguous(), _position_major(table.g), layer.g.shape[1])


def _position_major(g):
    return g.permute(2, 0, 1, 3).reshape(g.shape[2], -1, g.shape[3])
