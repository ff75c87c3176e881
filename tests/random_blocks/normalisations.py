"""Normalisations."""

import math

import torch
from torch import nn

from .draw import block, made, randomised, weight


@block(1, 2, 3)
def batch_norm(draw, *shape):
    kind = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
    return randomised(kind(shape[0], affine=draw.of(True, True, False))), shape


@block(1, 2, 3)
def layer_norm(draw, *shape):
    over = shape[draw.random.randrange(len(shape)) :]
    if math.prod(over) == 1:
        return nn.Identity(), shape
    return randomised(nn.LayerNorm(over, bias=draw.yes())), shape


@block(1, 2)
def rms_norm(draw, *shape):
    if draw.yes():
        return randomised(nn.RMSNorm(shape[-1])), shape

    def forward(self, x):
        return self.w * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-3))

    return made(shape, forward, w=weight(shape[-1]))


@block(1, 2, 3)
def group_norm(draw, *shape):
    groups = [g for g in range(1, shape[0] + 1) if shape[0] % g == 0]
    groups = draw.of(*[g for g in groups if math.prod(shape) > g] or [0])
    if not groups:
        return nn.Identity(), shape  # of one number a group there is no variance
    return randomised(nn.GroupNorm(groups, shape[0])), shape


@block(2, 3)
def instance_norm(draw, *shape):
    if math.prod(shape[1:]) == 1:
        return nn.Identity(), shape
    kind = nn.InstanceNorm1d if len(shape) == 2 else nn.InstanceNorm2d
    return randomised(kind(shape[0], affine=True, track_running_stats=draw.yes())), shape
