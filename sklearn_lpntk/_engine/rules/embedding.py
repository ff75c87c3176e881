"""Embedding tables: one-hot activations, never formed."""

import torch
from torch import nn

from ..factors import lookup_factor
from .base import LayerRule, cat


class EmbeddingRule(LayerRule):
    """`nn.Embedding`, with ``padding_idx`` (that row has no gradient)."""

    layer_types = (nn.Embedding,)
    parameter_names = ("weight",)
    sequence_first = True

    def activations(self, x):
        return x.reshape(x.shape[0] if x.ndim else 1, -1, 1)

    def cotangents(self, g, x):
        B, width = x.shape[0] if x.ndim else 1, self.module.embedding_dim
        g = g.reshape(B, -1, width)
        if self.module.padding_idx is None:
            return g
        return g * (self.activations(x) != self.module.padding_idx)

    def _combine(self, pieces, n, n_cotangents, *, dense):
        index, g = zip(*pieces)
        index, g = cat(index, 1).squeeze(2), cat(g, 2)
        return lookup_factor(index, g, self.module.num_embeddings, dense=dense)

    def split(self, flat):
        return {"weight": flat.view(self.module.weight.shape)}


class EmbeddingBagRule(EmbeddingRule):
    """`nn.EmbeddingBag` of fixed-length bags (2-d input), summed or averaged."""

    layer_types = (nn.EmbeddingBag,)
    sequence_first = False

    @classmethod
    def supports(cls, module):
        return module.mode in ("sum", "mean")

    def cotangents(self, g, x):
        if x.ndim != 2:
            raise ValueError("bags given by offsets have no rule")
        counted = torch.ones_like(x, dtype=g.dtype)
        if self.module.padding_idx is not None:
            counted = (x != self.module.padding_idx).to(g.dtype)
        if self.module.mode == "mean":
            counted = counted / counted.sum(1, keepdim=True).clamp(min=1)
        return counted[:, :, None] * g[:, None, :]
