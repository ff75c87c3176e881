"""Tables of rows: one-hot activations, never formed."""

from dataclasses import dataclass

import torch

from ..samples import by_sample
from .terms import Rows, Use, arguments, gathered


@dataclass
class EmbeddingUse(Use):
    """Rows of a table by their indices; those of ``padding_idx`` have no gradient."""

    index: torch.Tensor
    padding_idx: int | None

    def term(self, call, role, n, with_bias=False):
        """What the call adds to the gradient of the table."""
        index, g = by_sample(self.index, call.where, n, 0), gathered(call, n, 1)
        if self.padding_idx is not None:
            g = g * (index != self.padding_idx)[:, None, :, None]
        return Rows(index, g)


class Embedding:
    """`F.embedding`."""

    names = "embedding"
    options = "input weight padding_idx max_norm norm_type scale_grad_by_freq sparse"

    @classmethod
    def apply(cls, recorder, name, function, args, kwargs):
        given = arguments(cls.options, args, kwargs)
        if given["scale_grad_by_freq"]:
            return NotImplemented  # by how often a row is in the batch
        out = recorder.run(name, function, args, kwargs)
        padding = given["padding_idx"]
        if padding is not None and padding < 0:
            padding += len(given["weight"])
        use = EmbeddingUse(given["input"], padding)
        return recorder.record(use, {"weight": given["weight"]}, out)


@dataclass
class BagUse(EmbeddingUse):
    """Rows summed or averaged over bags of one length."""

    mean: bool

    def term(self, call, role, n, with_bias=False):
        """What the call adds to the gradient of the table."""
        g = gathered(call, n, 1)  # (n, R, bags, E)
        counted = torch.ones_like(self.index, dtype=g.dtype)
        if self.padding_idx is not None:
            counted = (self.index != self.padding_idx).to(g.dtype)
        if self.mean:
            counted = counted / counted.sum(1, keepdim=True).clamp(min=1)
        share = by_sample(counted, call.where, n, 1)  # (n, bags, length)
        g = (g.unsqueeze(3) * share[:, None, :, :, None]).flatten(2, 3)
        return Rows(by_sample(self.index, call.where, n, 1).flatten(1), g)


class EmbeddingBag:
    """`F.embedding_bag` of bags of one length, summed or averaged."""

    names = "embedding_bag"
    options = """input weight offsets max_norm norm_type scale_grad_by_freq mode sparse
        per_sample_weights include_last_offset padding_idx"""

    @classmethod
    def apply(cls, recorder, name, function, args, kwargs):
        given = arguments(cls.options, args, kwargs)
        if given["scale_grad_by_freq"]:
            return NotImplemented  # by how often a row is in the batch
        mode, weighted = given["mode"] or "mean", given["per_sample_weights"] is not None
        indices = given["input"].ndim == 2 and not given["input"].is_floating_point()
        if not indices or weighted or mode not in ("sum", "mean"):
            return NotImplemented
        out = recorder.run(name, function, args, kwargs)
        padding = given["padding_idx"]
        if padding is not None and padding < 0:
            padding += len(given["weight"])
        use = BagUse(given["input"], padding, mode == "mean")
        return recorder.record(use, {"weight": given["weight"]}, out)
