"""Convolutions: every output position is a product with its patch."""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F
from torch.nn.grad import conv1d_weight, conv2d_weight, conv3d_weight

from ..factors import is_written_faster
from ..products import slices
from ..samples import by_sample
from .terms import Entries, Matrices, Positions, Use, arguments, gathered

# numbers in the patches of some samples, and in their gradients: of more, the allocator keeps
# none, and every page is faulted in anew
PATCHES, GRADIENTS = 2**23, 2**20
F32 = torch.float32
WEIGHT_GRADIENTS = {1: conv1d_weight, 2: conv2d_weight, 3: conv3d_weight}
POSITIONS = 64  # of an image from which the processor's convolutions beat products of patches


@dataclass
class ConvolutionUse(Use):
    """A convolution of inputs x: (B, C, *space), padded by as much as `F.pad` takes."""

    x: torch.Tensor
    kernel: tuple
    stride: tuple
    padding: tuple
    dilation: tuple
    groups: int

    def term(self, call, role, n, with_bias=False):
        """What the call adds to the gradient of its weight or bias."""
        g = gathered(call, n, 1 + len(self.kernel))  # (n, R, T, O, *out)
        if role == "bias":
            return Entries(g.flatten(4).sum((2, 4)))
        x = by_sample(self.x, call.where, n, 1 + len(self.kernel)).to(g.dtype)
        if self.groups > 1 or self._is_convolved_faster(g):
            return self._convolved(x, g, with_bias)
        x = F.pad(x, self.padding)
        width, depth = g.shape[3], x.shape[2] * math.prod(self.kernel)
        n_positions = g.shape[2] * g.shape[4:].numel()
        if is_written_faster(n_positions**2, width, depth + with_bias):
            return self._multiplied(x, g, depth + with_bias, with_bias)
        return self._plain(x, g, with_bias)

    def _plain(self, x, g, with_bias):
        """Patches (n, T * S, D), with a column of ones where the bias counts."""
        patches = _patches(x.flatten(0, 1), self.kernel, self.stride, self.dilation)
        B, n_columns = len(patches), patches.shape[1 : 2 + len(self.kernel)].numel()
        a = g.new_empty(B, n_columns + with_bias, *patches.shape[2 + len(self.kernel) :])
        a[:, :n_columns].view(patches.shape).copy_(patches)
        if with_bias:
            a[:, n_columns] = 1
        a = a.flatten(2).transpose(1, 2).unflatten(0, x.shape[:2]).flatten(1, 2)
        return Positions(a, g.flatten(4).transpose(3, 4).flatten(2, 3))

    def _multiplied(self, x, g, depth, with_bias):
        """Some samples at a time: patches are many times the inputs."""
        n, R, T, width = g.shape[:4]
        phi = g.new_empty(n, R, width, depth)
        numbers = T * g.shape[4:].numel() * depth
        for rows in slices(n, max(1, PATCHES // numbers)):
            a = self._columns(x[rows].flatten(0, 1))  # (n T, D, S)
            found = g[rows].flatten(4).transpose(1, 2).flatten(2, 3).flatten(0, 1) @ a.mT
            found = found.unflatten(0, (-1, T)).sum(1) if T > 1 else found
            phi[rows, :, :, : a.shape[1]] = found.unflatten(1, (R, width))
        if with_bias:
            phi[..., -1] = g.flatten(4).sum((2, 4))
        return Matrices(phi)

    @property
    def _is_pointwise(self):
        return math.prod(self.kernel) == math.prod(self.stride) == 1

    def _columns(self, x):
        """Patches as columns: (B, D, S); a view of inputs where a patch is one pixel."""
        if self._is_pointwise:
            return x.flatten(2)
        patches = _patches(x, self.kernel, self.stride, self.dilation)
        return patches.reshape(len(x), x.shape[1] * math.prod(self.kernel), -1)

    def _is_convolved_faster(self, g):
        """Measured: twice as fast on maps of 8 x 8 and more, where copies of patches are slow."""
        image = len(self.kernel) > 1 and g.shape[4:].numel() >= POSITIONS
        return image and not self._is_pointwise and g.dtype is F32 and g.device.type == "cpu"

    def _convolved(self, x, g, with_bias):
        """Inputs are convolved with g as their kernels, each sample as groups of its own."""
        n, R, T, width = g.shape[:4]
        depth = x.shape[2] // self.groups * math.prod(self.kernel)
        phi = g.new_empty(n, R, width, depth + with_bias)
        even = self.padding[::2] == self.padding[1::2]
        x, amounts = (x, self.padding[::-2]) if even else (F.pad(x, self.padding), 0)
        for rows in slices(n, max(1, GRADIENTS // (R * T * width * depth))):
            phi[rows, :, :, :depth] = self._weight_gradients(x[rows], g[rows], depth, amounts)
        if with_bias:
            phi[..., -1] = g.flatten(4).sum((2, 4))
        if self.groups == 1:
            return Matrices(phi)
        return Entries(phi.unflatten(3, (-1, *self.kernel)))

    def _weight_gradients(self, x, g, depth, padding):
        """Those of some samples: (n, R, O, D). Scalars are more channels of a group."""
        n, R, T = g.shape[:3]
        g = g.movedim(1, 2).unflatten(3, (self.groups, -1)).movedim(2, 3)  # (n, T, G, R, O / G)
        sizes, g = g.shape[:5], g.flatten(0, 4)
        found = WEIGHT_GRADIENTS[len(self.kernel)](
            x.flatten(0, 2).unsqueeze(0),
            (len(g), x.shape[2] // self.groups, *self.kernel),
            g.unsqueeze(0),
            stride=self.stride,
            padding=padding,
            dilation=self.dilation,
            groups=n * T * self.groups,
        )
        return found.view(*sizes, depth).sum(1).movedim(2, 1).reshape(n, R, -1, depth)


class Convolution:
    """`F.conv1d`, `conv2d`, `conv3d`."""

    names = "conv1d conv2d conv3d"
    options = "input weight bias stride padding dilation groups"

    @classmethod
    def apply(cls, recorder, name, function, args, kwargs):
        given = arguments(cls.options, args, kwargs)
        x, weight, bias = (given[key] for key in ("input", "weight", "bias"))
        n_axes = int(name[4])
        if recorder.weight(x) or x.ndim != n_axes + 2:
            return NotImplemented
        out = recorder.run(name, function, args, kwargs)
        stride, dilation = (_each(given[key], n_axes, 1) for key in ("stride", "dilation"))
        kernel = tuple(weight.shape[2:])
        padding = tuple(_padding(given["padding"], kernel, dilation))
        groups = given["groups"] or 1
        use = ConvolutionUse(x.detach(), kernel, stride, padding, dilation, groups)
        return recorder.record(use, {"weight": weight, "bias": bias}, out)


@dataclass
class TransposedUse(Use):
    """A transposed convolution: the inputs meet patches of the output's gradient."""

    x: torch.Tensor
    kernel: tuple
    stride: tuple
    padding: tuple
    dilation: tuple
    groups: int

    def term(self, call, role, n, with_bias=False):
        """What the call adds to the gradient of its weight or bias."""
        n_axes = len(self.kernel)
        g = gathered(call, n, 1 + n_axes)
        if role == "bias":
            return Entries(g.flatten(4).sum((2, 4)))
        x = by_sample(self.x, call.where, n, 1 + n_axes).to(g.dtype)
        pads = [amount for p in reversed(self.padding) for amount in (p, p)]
        g = _patches(self._room(g.flatten(0, 2), pads), self.kernel, self.stride, self.dilation)
        window = tuple(slice(0, size) for size in x.shape[3:])
        g = g[(..., *window)].flatten(2 + n_axes).unflatten(0, (n, len(call.gradients), -1))
        x = x.flatten(3).unflatten(2, (self.groups, -1))  # (n, T, G, C / G, space)
        g = g.unflatten(3, (self.groups, -1)).flatten(5, 4 + n_axes)  # (n, R, T, G, O / G, k, s)
        phi = torch.einsum("ntgcs,nrtgoks->nrgcok", x, g).flatten(2, 3)
        return Entries(phi.unflatten(-1, self.kernel))

    def _room(self, g, pads):
        """The output before its edges were cut off, with room for every input's patch."""
        needed = [
            step * (size - 1) + gap * (k - 1) + 1
            for step, size, gap, k in zip(
                self.stride, self.x.shape[2:], self.dilation, self.kernel, strict=True
            )
        ]
        g = F.pad(g, pads)
        missing = [max(0, want - have) for want, have in zip(needed, g.shape[2:])]
        return F.pad(g, [amount for m in reversed(missing) for amount in (0, m)])


class TransposedConvolution:
    """`F.conv_transpose1d`, `conv_transpose2d`, `conv_transpose3d`."""

    names = "conv_transpose1d conv_transpose2d conv_transpose3d"
    options = "input weight bias stride padding output_padding groups dilation"

    @classmethod
    def apply(cls, recorder, name, function, args, kwargs):
        given = arguments(cls.options, args, kwargs)
        x, weight, bias = (given[key] for key in ("input", "weight", "bias"))
        n_axes = int(name[-2])
        if recorder.weight(x) or x.ndim != n_axes + 2:
            return NotImplemented
        out = recorder.run(name, function, args, kwargs)
        stride, dilation = (_each(given[key], n_axes, 1) for key in ("stride", "dilation"))
        padding, groups = _each(given["padding"], n_axes, 0), given["groups"] or 1
        use = TransposedUse(
            x.detach(), tuple(weight.shape[2:]), stride, padding, dilation, groups
        )  # fmt: skip
        return recorder.record(use, {"weight": weight, "bias": bias}, out)


def _each(value, n_axes, default):
    """An option for every axis."""
    value = default if value is None else value
    value = (value,) if isinstance(value, int) else tuple(value)
    return value * n_axes if len(value) == 1 else value


def _padding(padding, kernel, dilation):
    """Amounts for `F.pad`, the last axis first, strings resolved."""
    if padding == "valid":
        return [0] * 2 * len(kernel)
    if padding == "same":
        totals = [gap * (k - 1) for gap, k in zip(dilation, kernel)]
        pairs = [(t // 2, t - t // 2) for t in totals]
    else:
        pairs = [(p, p) for p in _each(padding, len(kernel), 0)]
    return [amount for pair in reversed(pairs) for amount in pair]


def _patches(x, kernel, stride, dilation):
    """im2col as a view (`F.unfold` is half as fast): (B, C, *kernel, *out)."""
    x = x.contiguous()
    sizes, kernel_strides, out_strides = [], [], []
    for axis, (size, step, gap) in enumerate(zip(kernel, stride, dilation), start=2):
        sizes.append((x.shape[axis] - gap * (size - 1) - 1) // step + 1)
        kernel_strides.append(x.stride(axis) * gap)
        out_strides.append(x.stride(axis) * step)
    return x.as_strided(
        (*x.shape[:2], *kernel, *sizes),
        (x.stride(0), x.stride(1), *kernel_strides, *out_strides),
        x.storage_offset(),
    )
