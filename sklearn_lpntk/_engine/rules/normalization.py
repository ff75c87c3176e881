"""The affine parts of normalisations: ``sum_t g_t * normalised input`` and ``sum_t g_t``."""

import torch
from torch import nn
from torch.nn import functional as F

from .base import FeatureRule


class ChannelNormRule(FeatureRule):
    """Affine parameters of shape (C,), channels on axis 1."""

    def features(self, x, g):
        parts = {"weight": lambda: g * self.normalised(x), "bias": lambda: g}
        return torch.cat([self._sum(parts[k]()) for k in parts if k in self.names], 1)

    def _sum(self, x):
        return x.reshape(*x.shape[:2], -1).sum(2)

    def normalised(self, x):
        """The layer's output before its affine part."""
        raise NotImplementedError


class BatchNormRule(ChannelNormRule):
    """`nn.BatchNorm1d`, `2d`, `3d` in evaluation mode, with running statistics."""

    layer_types = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

    @classmethod
    def supports(cls, module):
        return module.running_mean is not None

    def normalised(self, x):
        m = self.module
        return F.batch_norm(x, m.running_mean, m.running_var, eps=m.eps)


class GroupNormRule(ChannelNormRule):
    """`nn.GroupNorm`."""

    layer_types = (nn.GroupNorm,)

    def normalised(self, x):
        return F.group_norm(x, self.module.num_groups, eps=self.module.eps)


class InstanceNormRule(ChannelNormRule):
    """`nn.InstanceNorm1d`, `2d`, `3d`."""

    layer_types = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)

    def normalised(self, x):
        m = self.module
        own = not m.track_running_stats
        return F.instance_norm(x, m.running_mean, m.running_var, use_input_stats=own, eps=m.eps)


class LayerNormRule(ChannelNormRule):
    """`nn.LayerNorm` and `nn.RMSNorm`: affine parameters of the normalised shape."""

    layer_types = (nn.LayerNorm, nn.RMSNorm)
    sequence_first = True

    def _sum(self, x):
        shape = torch.Size(self.module.normalized_shape)
        if x.ndim == len(shape):
            x = x.unsqueeze(0)
        return x.reshape(x.shape[0], -1, shape.numel()).sum(1)

    def normalised(self, x):
        norm = F.rms_norm if isinstance(self.module, nn.RMSNorm) else F.layer_norm
        return norm(x, self.module.normalized_shape, eps=self.module.eps)
