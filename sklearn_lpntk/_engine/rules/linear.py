"""Linear layers: ``(a . a' + 1)(g . g')``."""

from torch import nn
from torch.nn.functional import pad

from .base import LayerRule


class LinearRule(LayerRule):
    """`nn.Linear` with any leading dimensions."""

    layer_types = (nn.Linear,)
    sequence_first = True

    def activations(self, x):
        x = x.reshape(x.shape[0] if x.ndim > 1 else 1, -1, x.shape[-1])
        return pad(x, (0, 1), value=1.0) if "bias" in self.names else x

    def cotangents(self, g, x):
        return g.reshape(g.shape[0] if g.ndim > 1 else 1, -1, g.shape[-1])
