"""Normalisations: a scale and a shift of what is normalised."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..samples import by_sample
from .terms import Entries, Use, arguments, gathered


@dataclass
class NormalisedUse(Use):
    """A scale of inputs x that are normalised, over channels or over the last ``kept`` axes."""

    x: torch.Tensor
    normalised: Callable  # of inputs, without scale and shift
    kept: int
    channels: bool

    @property
    def signature(self):
        """All that its terms depend on, but for numbers."""
        return type(self).__name__, str(self.kept), str(self.channels)

    def term(self, call, role, n, with_bias=False):
        """What the call adds to the gradient of its weight or bias."""
        g = gathered(call, n, self.kept)  # (n, R, T, ...)
        if role == "weight":
            with torch.no_grad():
                x = self.normalised(self.x)
            g = g * by_sample(x, call.where, n, self.kept).unsqueeze(1).to(g.dtype)
        space = range(4, 3 + self.kept) if self.channels else ()
        return Entries(g.sum((2, *space)))


class Normalisation:
    """`F.batch_norm` by running statistics, `layer_norm`, `rms_norm`, `group_norm` and so on."""

    names = "batch_norm layer_norm rms_norm group_norm instance_norm"
    options = {
        "batch_norm": "input running_mean running_var weight bias training momentum eps",
        "layer_norm": "input normalized_shape weight bias eps",
        "rms_norm": "input normalized_shape weight eps",
        "group_norm": "input num_groups weight bias eps",
        "instance_norm": """input running_mean running_var weight bias use_input_stats momentum
            eps""",
    }

    @classmethod
    def apply(cls, recorder, name, function, args, kwargs):
        given = arguments(cls.options[name], args, kwargs)
        if name == "batch_norm" and (given["training"] or given["running_mean"] is None):
            return NotImplemented  # of the batch: no sample has it for itself
        out = recorder.run(name, function, args, kwargs)
        x = given.pop("input").detach()
        weights = {role: given.pop(role, None) for role in ("weight", "bias")}
        rest = {key: value for key, value in given.items() if value is not None}
        channels = "normalized_shape" not in given
        kept = x.ndim - 1 if channels else len(given["normalized_shape"])
        use = NormalisedUse(x, lambda x: function(x, **rest), kept, channels)
        return recorder.record(use, weights, out)
