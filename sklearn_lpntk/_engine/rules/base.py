"""What every layer rule shares: where the samples are in a call, and how calls add up."""

import torch

from ..factors import Dense, outer_factor


class LayerRule:
    """Turns the calls of one layer into the factor of its parameters' gradients.

    A subclass names its ``layer_types`` and the ``parameter_names`` it covers, and either
    overrides `activations` and `cotangents` (the gradient is ``sum_t g_t a_t^T``, with the
    bias as one more activation, always 1) or `features` (anything else, materialised).

    Parameters
    ----------
    module : nn.Module
        The layer.
    names : set of str
        The names in ``module._parameters`` whose gradients are wanted.
    """

    layer_types = ()
    parameter_names = ("weight", "bias")
    sequence_first = False  # may the samples lie along the second axis of the input?

    def __init__(self, module, names):
        self.module, self.names = module, names

    @classmethod
    def supports(cls, module):
        """Whether this very module is covered (options can rule it out)."""
        return True

    # -- where the samples are -----------------------------------------------------------

    def layouts(self, x, n):
        """Possible layouts of the samples in a call's input, the likeliest first.

        ``"rows"``: the first axis holds n samples, or n groups of positions in sample
        order (windows, flattened sequences); ``"second"``: sequence-first data;
        ``"single"``: all of a batch of one, whatever the axes.
        """
        if n == 1:
            return ["single"]
        size = x.shape[0] if x.ndim else 0
        possible = []
        if size == n:
            possible.append("rows")
        if self.sequence_first and x.ndim > 1 and x.shape[1] == n:
            possible.append("second")
        if size > n and size % n == 0:
            possible.append("rows")
        return possible

    # -- the factor -----------------------------------------------------------------------

    def factor(self, calls, layouts, n, n_cotangents, *, dense):
        """The factor of all calls of this layer in one batch of n samples."""
        pieces = [
            self._piece(*_arrange(call, layout), n)
            for call, layout in zip(calls, layouts, strict=True)
        ]
        return self._combine(pieces, n, n_cotangents, dense=dense)

    def _piece(self, x, gradients, n):
        """(a, g) of one call: (n, T, D) and (n, R, T, O)."""
        g = [self.cotangents(g, x) for g in gradients]
        g = cat([_by_sample(part, n).unsqueeze(1) for part in g], 1)
        if "weight" in self.names:
            return _by_sample(self.activations(x), n), g
        return g.new_ones(n, g.shape[2], 1), g

    def _combine(self, pieces, n, n_cotangents, *, dense):
        a, g = zip(*pieces)
        a, g = cat(a, 1), cat(g, 2)
        return outer_factor(a, g, dense=dense)

    def activations(self, x):
        """(B, T, D) of an input, with the column of ones where the bias counts."""
        raise NotImplementedError

    def cotangents(self, g, x):
        """(B, T, O) of an output gradient."""
        raise NotImplementedError

    def split(self, flat):
        """A flat gradient, as the factor orders it, by parameter name."""
        weight, bias = self.module._parameters.get("weight"), "bias" in self.names
        if "weight" not in self.names:
            return {"bias": flat}
        matrix = flat.view(weight.shape[0], -1)
        parts = {"weight": matrix[:, : matrix.shape[1] - bias].reshape(weight.shape)}
        return parts | ({"bias": matrix[:, -1]} if bias else {})


class FeatureRule(LayerRule):
    """A rule whose gradients are materialised call by call: `features` of shape (B, P)."""

    def _piece(self, x, gradients, n):
        rows = [self.features(x, g) for g in gradients]
        return cat([part.reshape(n, -1, part.shape[1]).sum(1, True) for part in rows], 1)

    def _combine(self, pieces, n, n_cotangents, *, dense):
        return Dense(sum(pieces).flatten(0, 1), n_cotangents)

    def features(self, x, g):
        """(B, P): the gradients of the named parameters, flat, one row per input row."""
        raise NotImplementedError

    def split(self, flat):
        parts, start = {}, 0
        for name in self.parameter_names:
            if name in self.names:
                shape = self.module._parameters[name].shape
                parts[name] = flat[start : start + shape.numel()].view(shape)
                start += shape.numel()
        return parts


def _arrange(call, layout):
    """Input and output gradients of a call, samples first, a missing gradient as zeros."""
    zero = torch.zeros_like(next(g for g in call.gradients if g is not None))
    arrays = [call.input, *(zero if g is None else g for g in call.gradients)]
    x, *gradients = [a.transpose(0, 1) for a in arrays] if layout == "second" else arrays
    return x, gradients


def cat(parts, axis):
    """`torch.cat` that does not copy a single part."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis)


def _by_sample(x, n):
    """(B, T, P) with B = n or n groups of rows in sample order, as (n, T', P)."""
    return x if x.shape[0] == n else x.reshape(n, -1, x.shape[2])
