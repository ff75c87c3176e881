"""Operations in which a weight may have one copy a sample: autograd then tells them apart."""

from dataclasses import dataclass

import torch

from ..names import ARITHMETIC
from ..samples import CONSTANT, UNKNOWN, Samples, aligned
from .terms import Entries, Use


@dataclass
class ExpandedUse(Use):
    """A weight that was expanded to one copy a sample; the gradient of the copy is its own."""

    shape: tuple

    def term(self, call, role, n, with_bias=False):
        """What the call adds to the gradient of the weight."""
        axis, R = call.where.axis, len(call.gradients)
        zero = torch.zeros_like(next(g for g in call.gradients if g is not None))
        found = []
        for g in call.gradients:
            g = zero if g is None else g
            g = g.unsqueeze(0) if axis < 0 else g.movedim(axis, 0)
            rest = (1,) * (len(self.shape) - g.ndim + 1) + g.shape[1:]
            g = g.reshape(n, *rest)
            lined = (1,) * (len(rest) - len(self.shape)) + tuple(self.shape)
            found.append(g.sum_to_size(n, *lined))
        return Entries(torch.stack(found, 1).reshape(n, R, *self.shape))


class Expanded:
    """A weight that the network itself expands to one copy a sample, as a class token."""

    names = "expand"
    Use = ExpandedUse

    @staticmethod
    def apply(recorder, name, function, args, kwargs):
        return NotImplemented  # with an argument of the samples


class Elementwise:
    """Arithmetic with broadcasting: scales, shifts, position embeddings."""

    names = ARITHMETIC

    @staticmethod
    def apply(recorder, name, function, args, kwargs):
        values = (*args, *kwargs.values())
        tensors = [t for t in values if isinstance(t, torch.Tensor)]
        weights = [t for t in tensors if recorder.weight(t)]
        ndim = max(t.ndim for t in tensors)
        where, guess = _where(recorder, tensors, weights, ndim)
        if where is None:
            return NotImplemented
        places = {id(t): _place(recorder, t, where, ndim - where.axis, guess) for t in weights}
        if any(t is None for t in places.values()):
            return NotImplemented
        args = tuple(places.get(id(t), t) for t in args)
        kwargs = {key: places.get(id(t), t) for key, t in kwargs.items()}
        return recorder.run(name, function, args, kwargs)


def _where(recorder, tensors, weights, ndim):
    """The axis of the samples in the result, and the guess it rests on."""
    labels = {id(t): recorder.label_of(t) for t in tensors}
    pairs = [(t, labels[id(t)]) for t in tensors if labels[id(t)] != CONSTANT]
    if UNKNOWN not in labels.values():
        where = pairs[0][1] if pairs[0][1].axis < 0 else aligned(pairs, ndim)
        return where, None
    shape = torch.broadcast_shapes(*(t.shape for t in tensors))
    return recorder.where(UNKNOWN, shape, {id(t): recorder.weight(t) for t in weights})


def _place(recorder, tensor, where, from_end, guess):
    """The weight with one copy a sample, lined up with a result; None where it has no room."""
    n, weight = recorder.n, recorder.weight(tensor)
    if where.axis < 0:
        return expanded(recorder, weight, guess)[0]
    if tensor.ndim >= from_end and tensor.shape[-from_end] != 1:
        return recorder.redone(weight, where._replace(axis=tensor.ndim - from_end))
    lined = tensor.reshape((1,) * (from_end - tensor.ndim) + tuple(tensor.shape))
    copies = expanded(recorder, weight, guess).reshape(n, *lined.shape).squeeze(-from_end)
    if where.owners is not None:
        copies = copies[list(where.owners)]
    axis = lined.ndim - from_end
    out = copies.movedim(0, axis)
    if where.outer * where.inner > 1:
        shape = (*out.shape[:axis], where.outer, n, where.inner, *out.shape[axis + 1 :])
        out = out[(..., None, slice(None), None, *[slice(None)] * (from_end - 1))]
        out = out.expand(shape).flatten(axis, axis + 2)
    recorder.set_label(out, where._replace(axis=axis))
    return out


def expanded(recorder, weight, guess=None):
    """One copy of a weight a sample: (n, *shape), its edge recorded."""
    copies = weight.tensor.expand(recorder.n, *weight.tensor.shape)
    recorder.record_expanded(weight, copies, guess)
    return copies


class Einsum:
    """`torch.einsum` with one weight: the sample's letter is given to it, too."""

    names = "einsum"

    @staticmethod
    def apply(recorder, name, function, args, kwargs):
        equation, *operands = args
        operands = operands[0] if isinstance(operands[0], (list, tuple)) else operands
        weights = [recorder.weight(t) for t in operands]
        if sum(w is not None for w in weights) != 1:
            return NotImplemented
        at, weight = next((k, w) for k, w in enumerate(weights) if w)
        labels = [recorder.label_of(t) for t in operands]
        sides = equation.replace(" ", "").split("->")
        if "." in equation or UNKNOWN in labels or len(sides) != 2:
            return NotImplemented
        terms = sides[0].split(",")
        letters = {(t[w.axis], *w[1:]) for t, w in zip(terms, labels) if w != CONSTANT}
        return _einsum(recorder, function, weight, at, terms, sides[1], letters, operands)


def _einsum(recorder, function, weight, at, terms, result, letters, operands):
    copies = list(operands)
    if recorder.n == 1:
        copies[at] = expanded(recorder, weight)[0]
    else:
        ((letter, outer, inner, owners),) = letters
        if letter in terms[at] or letter not in result or outer * inner > 1:
            return NotImplemented
        terms[at] = letter + terms[at]
        copies[at] = expanded(recorder, weight)
        copies[at] = copies[at] if owners is None else copies[at][list(owners)]
        recorder.set_label(copies[at], Samples(0, owners=owners))
    equation = ",".join(terms) + "->" + result
    return recorder.run("einsum", function, (equation, *copies), {})


def batched_product(recorder, a, b):
    """``a @ b`` with a stack of matrices b of the same batch axes, as an einsum."""
    if a.shape[:-2] != b.shape[:-2]:
        return NotImplemented
    batch = "abcefghijklmn"[: b.ndim - 2]
    with recorder:
        return torch.einsum(f"{batch}yd,{batch}do->{batch}yo", a, b)
