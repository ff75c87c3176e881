"""Convolutions: every output position is a linear layer on its patch."""

import torch
from torch import nn
from torch.nn.functional import pad

from ..factors import Dense
from .base import LayerRule


class ConvRule(LayerRule):
    """`nn.Conv1d`, `nn.Conv2d`, `nn.Conv3d` with all their options."""

    layer_types = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

    def activations(self, x):
        patches = self._patches(x)  # (B, C, *kernel, *out)
        B, n_columns = patches.shape[0], patches.shape[1 : 2 + self._n_axes].numel()
        bias = "bias" in self.names
        out = patches.shape[2 + self._n_axes :]
        a = x.new_empty(B, n_columns + bias, *out)
        a[:, :n_columns].view(patches.shape).copy_(patches)
        if bias:
            a[:, n_columns] = 1
        return a.flatten(2).transpose(1, 2)

    def cotangents(self, g, x):
        return self._batched(g).flatten(2).transpose(1, 2)

    def _combine(self, pieces, n, n_cotangents, *, dense):
        if self.module.groups == 1 or "weight" not in self.names:
            return super()._combine(pieces, n, n_cotangents, dense=dense)
        phi = sum(self._grouped_features(a, g) for a, g in pieces)
        return Dense(phi.reshape(n * n_cotangents, -1), n_cotangents)

    def _grouped_features(self, a, g):
        """The block-diagonal outer product: each output channel meets its group's inputs."""
        groups, bias = self.module.groups, "bias" in self.names
        weight = a[:, :, : a.shape[2] - bias].unflatten(2, (groups, -1))
        grouped = g.unflatten(3, (groups, -1))
        phi = torch.einsum("nrtko,ntkd->nrkod", grouped, weight).flatten(2, 3)
        if bias:
            phi = torch.cat([phi, g.sum(2).unsqueeze(3)], 3)
        return phi

    @property
    def _n_axes(self):
        return len(self.module.kernel_size)

    def _batched(self, x):
        return x if x.ndim == self._n_axes + 2 else x.unsqueeze(0)

    def _patches(self, x):
        """im2col as a view (`F.unfold` is half as fast): (B, C, *kernel, *out)."""
        module, x = self.module, self._batched(x)
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        # the same amounts as the layer uses, string paddings resolved
        x = pad(x, module._reversed_padding_repeated_twice, mode=mode).contiguous()
        kernel, out, kernel_strides, out_strides = [], [], [], []
        for axis, (size, step, gap) in enumerate(
            zip(module.kernel_size, module.stride, module.dilation, strict=True), start=2
        ):
            kernel.append(size)
            out.append((x.shape[axis] - gap * (size - 1) - 1) // step + 1)
            kernel_strides.append(x.stride(axis) * gap)
            out_strides.append(x.stride(axis) * step)
        return x.as_strided(
            (*x.shape[:2], *kernel, *out),
            (x.stride(0), x.stride(1), *kernel_strides, *out_strides),
        )
