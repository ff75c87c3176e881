"""From recorded calls to blocks: factors of parameters whose gradients do not overlap.

The kernel is the sum over blocks. A block is a parameter, a weight with the bias beside it, or a
slice of a parameter that the network takes apart; other derived weights are pulled back to
their parameters by autograd.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch

from .factors import Dense
from .forms import lookup_factor, outer_factor, tied_factor
from .rules import Entries, Matrices, Positions, Rows, Shared
from .rules.convolution import ConvolutionUse
from .rules.linear import LinearUse


class NoRule(Exception):
    """A call that its rule was not made for; ``names`` are the parameters concerned."""

    def __init__(self, names):
        super().__init__(names)
        self.names = frozenset(names)


@dataclass
class Block:
    """A factor, and where parameters are in a flat gradient of its order."""

    key: str
    factor: Any
    places: list

    def parts(self, flat):
        """A flat gradient by parameter: dict of name -> tensor of its shape."""
        return {place.name: place(flat) for place in self.places}


@dataclass(frozen=True)
class Place:
    """Where a parameter is in a flat gradient, in its own order unless said otherwise."""

    name: str
    shape: torch.Size
    view: tuple | None = None  # (shape, strides, offset) of a slice
    matrix: tuple | None = None  # (rows, columns, transposed) of the matrix that it is part of
    columns: tuple = (0, None)  # those of the matrix that are its own
    rows: bool = False  # of a table, kept as such

    def __call__(self, flat):
        if self.matrix is not None:
            rows, columns, transposed = self.matrix
            flat = flat.view(rows, columns)[:, slice(*self.columns)]
            flat = flat.T if transposed else flat
        if self.view is None:
            return flat.reshape(self.shape)
        out = flat.new_zeros(self.shape)
        out.as_strided(*self.view).copy_(flat.reshape(self.view[0]))
        return out


@dataclass
class _Used:
    """A weight and the calls it takes part in, with its role there."""

    weight: Any
    calls: list

    def term(self, n, with_bias=False):
        """The sum over calls, in a common form."""
        terms = [call.use.term(call, role, n, with_bias) for call, role in self.calls]
        if any(isinstance(t, Matrices) for t in terms):
            terms = [t.matrices() if isinstance(t, Positions) else t for t in terms]
        kinds = {(type(t), getattr(t, "transposed", None)) for t in terms}
        if kinds == {(Positions, False), (Rows, None)}:
            found = [[t for t in terms if isinstance(t, kind)] for kind in (Positions, Rows)]
            shared = Shared(*(_stacked(parts) for parts in found))
            return shared if shared.is_small else shared.entries(self.weight.tensor.shape)
        if len(kinds) > 1 or isinstance(terms[0], Entries):
            written = [t.entries(self.weight.tensor.shape).phi for t in terms]
            return Entries(functools.reduce(torch.add, written))
        if isinstance(terms[0], Matrices):
            phi = functools.reduce(torch.add, [t.phi for t in terms])
            return Matrices(phi, terms[0].transposed)
        return _stacked(terms)


def _stacked(terms):
    """Terms with positions as one."""
    g = _cat([t.g for t in terms], 2)
    if isinstance(terms[0], Rows):
        return Rows(_cat([t.index for t in terms], 1), g)
    return Positions(_cat([t.a for t in terms], 1), g, terms[0].transposed)


def structure_of(blocks):
    """How the gradient of each parameter is laid out: dict of name -> str."""
    found = {}
    for block in blocks:
        for place in block.places:
            found[place.name] = f"{found.get(place.name, '')}{block.key}: {place}; "
    return found


def blocks_of(calls, parameters, recorder, rooms, apart=frozenset()):
    """The blocks of the calls of one batch that was recorded, in order of their first use.

    Parameters in ``apart`` have a block of their own, in their own order. ``rooms`` has arrays
    by key that written-out gradients may go to.
    """
    used = {}
    for call in calls:
        for role, weight in call.weights.items():
            key = id(weight.tensor)
            used.setdefault(key, _Used(weight, [])).calls.append((call, role))
    sources = {}
    for one in used.values():
        for name in one.weight.names:
            sources.setdefault(name, []).append(one)
    biases = _biases_beside(used, {k for k, own in sources.items() if len(own) > 1} | apart)
    for bias in biases.values():
        del sources[bias.name]  # it is part of its weight's block
    pulled, blocks = {}, []
    for name, own in sources.items():
        bias = biases.get(id(own[0].weight.tensor))
        try:
            found = _blocks(name, parameters, own, bias, pulled, recorder, name in apart)
            blocks += [_block(*args, rooms=rooms) for args in found]
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, LookupError) as error:
            raise NoRule({name, *([bias.name] if bias else [])}) from error
    return blocks


def _biases_beside(used, apart):
    """Biases that are used exactly where one weight is: id of that weight -> bias."""
    found = {}
    for key, one in used.items():
        name = one.weight.name
        if name is None or not all(_keeps_bias(c, role) for c, role in one.calls):
            continue
        biases = {id(call.weights["bias"].tensor) for call, _ in one.calls}
        bias = used[biases.pop()] if len(biases) == 1 else None
        together = bias and [id(c) for c, _ in bias.calls] == [id(c) for c, _ in one.calls]
        free = bias and bias.weight.name is not None and not {name, bias.weight.name} & apart
        if together and free and bias is not one:
            found[key] = bias.weight
    return found


def _keeps_bias(call, role):
    plain = isinstance(call.use, LinearUse) or getattr(call.use, "groups", 2) == 1
    kept = isinstance(call.use, (LinearUse, ConvolutionUse))
    return role == "weight" and plain and kept and "bias" in call.weights


def _blocks(name, parameters, sources, bias, pulled, recorder, apart):
    """What the blocks of one parameter are made of, given what is made of it."""
    p, n = parameters[name], recorder.n
    if len(sources) == 1 and sources[0].weight.name == name:
        term = sources[0].term(n, with_bias=bias is not None)
        return [(name, name, p, term.entries(p.shape) if apart else term, None, bias)]
    views = [_view_of(one.weight, p) for one in sources]
    if not apart and all(views) and _are_disjoint(tuple(views), p.numel()):
        keys = [name if len(views) == 1 else f"{name}[{k}]." for k in range(len(views))]  # no name
        return [(k, name, p, one.term(n), v) for k, one, v in zip(keys, sources, views)]
    parts = [_pulled(one, parameters, pulled, recorder)[name] for one in sources]
    return [(name, name, p, Entries(functools.reduce(torch.add, parts)))]


def _block(key, name, p, term, view=None, bias=None, *, rooms):
    shape = p.shape if view is None else torch.Size(view[0])
    if isinstance(term, (Positions, Matrices)):
        factor = _matrix_factor(term, rooms.get(key))
        matrix = (*factor.outer, term.transposed)
        if bias is None:
            return Block(key, factor, [Place(name, p.shape, view, matrix if matrix[2] else None)])
        weight = Place(name, p.shape, view, matrix, (0, -1))
        column = Place(bias.name, bias.tensor.shape, None, (*matrix[:2], False), (-1, None))
        return Block(key, factor, [weight, column])
    if isinstance(term, Shared):
        return Block(key, tied_factor(term.layer, term.table), [Place(name, p.shape, view)])
    if isinstance(term, Rows):
        factor = lookup_factor(term.index, term.g, shape[0], dense=None)
        return Block(key, factor, [Place(name, p.shape, view, rows=True)])
    outer = (shape[0], shape.numel() // shape[0]) if len(shape) > 1 else None
    factor = Dense(term.phi.flatten(2).flatten(0, 1), term.phi.shape[1], outer)
    return Block(key, factor, [Place(name, p.shape, view)])


def _matrix_factor(term, room):
    if isinstance(term, Positions):
        return outer_factor(term.a, term.g, room=room)
    return Dense(term.phi.flatten(2).flatten(0, 1), term.phi.shape[1], term.phi.shape[2:])


def _view_of(weight, p):
    """Shape, strides and offset of a weight that is a view of one parameter, else None."""
    t = weight.tensor
    if not (t._is_view() and t._base is p and p.is_contiguous() and len(weight.names) == 1):
        return None
    return tuple(t.shape), t.stride(), t.storage_offset() - p.storage_offset()


@functools.lru_cache(maxsize=256)
def _are_disjoint(views, n_numbers):
    """Whether views of one parameter share no number with each other, or with themselves."""
    seen = torch.zeros(n_numbers, dtype=torch.int8)
    index = torch.arange(n_numbers)
    for shape, strides, offset in views:
        found = index.as_strided(shape, strides, offset).flatten()
        if len(found.unique()) < len(found) or seen[found].any():
            return False
        seen[found] = 1
    return True


def _pulled(one, parameters, pulled, recorder):
    """Gradients of the parameters that a weight is made of: dict of name -> (n, R, *shape)."""
    weight = one.weight
    if id(weight) not in pulled:
        phi = one.term(recorder.n).entries(weight.tensor.shape).phi
        if weight.name is not None:
            pulled[id(weight)] = {weight.name: phi}
        else:
            pulled[id(weight)] = _pulled_back(weight, parameters, phi, recorder)
    return pulled[id(weight)]


def _pulled_back(weight, parameters, phi, recorder):
    names = sorted(weight.names)
    found = recorder.gradients(
        weight.tensor,
        [parameters[name] for name in names],
        phi.flatten(0, 1),
        is_grads_batched=True,
    )
    return {
        name: phi.new_zeros(*phi.shape[:2], *parameters[name].shape)
        if g is None
        else g.unflatten(0, phi.shape[:2])
        for name, g in zip(names, found)
    }


def _cat(parts, axis):
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis)
