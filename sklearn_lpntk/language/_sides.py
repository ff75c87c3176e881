"""Sequences whose tokens have scalars: gradients of these, and derivatives along a direction."""

from functools import cached_property, partial

import numpy as np
import torch

from .._engine.check import LOOKED_AT, require_independent_rows
from .._engine.directional import DirectionalDerivative, weighted_gradient
from .._engine.evaluate import batches_of
from .._engine.parameters import is_finite, select_parameters
from .._engine.session import borrowed
from .._runtime.progress import report
from ._batches import columns, labelled
from ._objectives import Custom


class Scalars:
    """What a model gives for each token, as a function of some of its parameters.

    Attributes
    ----------
    view : nn.Module
        From batches to scalars (n, T).
    derivative : DirectionalDerivative
        That of an earlier view keeps the way that was found to be right.
    is_given : bool
        Whether the scalars are those of a callable.
    """

    def __init__(self, causal, scalars, parameters=None, derivative=None):
        self.causal, self.view = causal, causal.view(scalars)
        self.is_given = isinstance(scalars, Custom)
        self._selection = parameters
        self.derivative = derivative or DirectionalDerivative()
        self.derivative.module = self.view

    @cached_property
    def parameters(self):
        """The parameters that count, by name: those that are trainable where it is asked first."""
        parameters = dict(self.view.named_parameters())
        return {name: parameters[name] for name in select_parameters(self.view, self._selection)}

    @property
    def n_parameters(self):
        """Their size."""
        return sum(p.numel() for p in self.parameters.values())


class Side:
    """The labelled tokens of a batch, sequence-major.

    Attributes
    ----------
    n, n_tokens : int
        Numbers of sequences and of labelled tokens.
    mask : tensor of shape (n, T)
        Where tokens are labelled.
    """

    def __init__(self, scalars, batch):
        self.scalars, self._batch = scalars, columns(batch)
        self._rows = scalars.causal.rows_of_a_batch(batch)
        self.mask = labelled(batch)
        self.n, self.n_tokens = len(self.mask), int(self.mask.sum())
        if scalars.is_given:
            self._require_independent_rows()

    def _require_independent_rows(self):
        """Refuse a callable whose losses of a sequence depend on the others."""
        view = self.scalars.view
        with borrowed(view):
            _, x = next(batches_of(view, self._batch, LOOKED_AT))
            require_independent_rows(view, x, next(view.parameters()).dtype)

    def gradient(self):
        """The gradient of the sum of all scalars, by name of the parameter."""
        view, parameters, total = self.scalars.view, self.scalars.parameters, {}
        with borrowed(view):
            for _, x in batches_of(view, self._batch, self._rows):
                gradient, _ = weighted_gradient(view, parameters, x, torch.ones_like)
                for name, g in gradient.items():
                    total[name] = total[name].add_(g) if name in total else g
        return _finite(total)

    def gradients(self):
        """The gradients of the scalars, one labelled token after the other."""
        view, parameters = self.scalars.view, self.scalars.parameters
        for done, (row, position) in enumerate(self.mask.nonzero().tolist(), 1):
            own = {key: value[row : row + 1] for key, value in self._batch.items()}
            with borrowed(view):
                ((_, x),) = batches_of(view, own, 1)
                one = partial(_unit, position=position)
                gradient, _ = weighted_gradient(view, parameters, x, one)
            yield _finite(gradient)
            report(done, self.n_tokens, "tokens")

    def along(self, direction):
        """Derivatives of the scalars along a direction: an ndarray of shape (n_tokens,)."""
        return self.values_and_derivatives(direction)[1]

    def values_and_derivatives(self, direction):
        """The scalars, and their derivatives along a direction: two ndarrays of (n_tokens,)."""
        view, derivative = self.scalars.view, self.scalars.derivative
        with borrowed(view):
            batches = batches_of(view, self._batch, self._rows)
            found = zip(*(derivative(x, direction) for _, x in batches))
            found = [torch.cat(parts).detach() for parts in found]
        values, found = (part[self.mask.to(part.device)].cpu().numpy() for part in found)
        if not np.isfinite(found).all():
            raise ValueError(
                "The changes of some tokens are not finite: the step is too large for the model's "
                "precision, or the objective has no derivative there."
            )
        return values, found


def _finite(gradient):
    for name, g in gradient.items():
        if not is_finite(g):
            raise ValueError(
                f"The gradient of {name!r} contains NaN or infinity (a logarithm of zero in the "
                "objective, or where there is no label?)."
            )
    return gradient


def _unit(scalars, position):
    out = torch.zeros_like(scalars)
    out[:, position] = 1
    return out
