"""Convolutions, and images as rows."""

import torch
from torch import nn
from torch.nn import functional as F

from .draw import block, made, randomised


def _convolution(draw, channels, sizes):
    """Options of a convolution that fits, and the sizes of its output."""
    groups = draw.of(1, 1, *[g for g in range(1, channels + 1) if channels % g == 0])
    out = groups * draw.size(3)
    mode = draw.of("zeros", "zeros", "circular", "replicate", "reflect")
    kernel = tuple(draw.random.randint(1, min(3, s)) for s in sizes)
    options = {
        "stride": draw.of(1, 1, 2, 3),
        "padding": draw.of(0, 0, 1, "same"),
        "dilation": draw.of(1, 1, 2),
        "groups": groups,
        "bias": draw.yes(),
        "padding_mode": mode,
    }
    if options["padding"] == "same":
        options["stride"] = 1
        kernel = tuple(k - 1 + k % 2 for k in kernel)  # torch warns of even ones
    small = any(s < 3 for s in sizes)
    gap = options["dilation"]
    if any(gap * (k - 1) + 1 > s for k, s in zip(kernel, sizes)):
        options["dilation"] = gap = 1
    if small and mode != "zeros":
        options["padding_mode"] = "zeros"
    return (channels, out, kernel), options


def _output(module, *shape):
    """The shape of a module's output for one sample."""
    with torch.no_grad():
        return tuple(module(torch.zeros(1, *shape)).shape[1:])


@block(2)
def conv1d(draw, T, D):
    """Over features or over time."""
    args, options = _convolution(draw, T, (D,))
    layer = nn.Conv1d(*args, **options)
    return layer, _output(layer, T, D)


@block(3)
def conv2d(draw, C, H, W):
    args, options = _convolution(draw, C, (H, W))
    layer = nn.Conv2d(*args, **options)
    if draw.of(0, 0, 1):
        layer = layer.to(memory_format=torch.channels_last)
    return layer, _output(layer, C, H, W)


@block(3)
def depthwise(draw, C, H, W):
    layer = nn.Conv2d(C, C * draw.of(1, 1, 2), 3, padding=1, groups=C, bias=draw.yes())
    return nn.Sequential(layer, nn.Conv2d(layer.out_channels, C, 1)), (C, H, W)


def _transposed(draw, kind, *shape):
    C = shape[0]
    groups, stride = draw.of(*[g for g in range(1, C + 1) if C % g == 0]), draw.of(1, 2)
    layer = kind(
        C,
        groups * draw.size(2),
        draw.random.randint(2, 3),
        stride=stride,
        padding=draw.of(0, 0, 1) if min(shape[1:]) > 2 else 0,
        output_padding=draw.of(0, 1) if stride == 2 else 0,
        groups=groups,
        bias=draw.yes(),
        dilation=draw.of(1, 1, 2),
    )
    return layer, _output(layer, *shape)


@block(2)
def transposed_conv1d(draw, T, D):
    return _transposed(draw, nn.ConvTranspose1d, T, D)


@block(3)
def transposed_conv2d(draw, C, H, W):
    return _transposed(draw, nn.ConvTranspose2d, C, H, W)


@block(3)
def convolution_in_a_loop(draw, C, H, W):
    def forward(self, x):
        for _ in range(3):
            x = F.relu(self.conv(x), inplace=True)
        return x

    return made((C, H, W), forward, conv=nn.Conv2d(C, C, 3, padding=1))


@block(3)
def squeeze_and_excite(draw, C, H, W):
    def forward(self, x):
        return x * self.up(self.down(x.mean((2, 3))).relu()).sigmoid()[:, :, None, None]

    return made((C, H, W), forward, down=nn.Linear(C, 2), up=nn.Linear(2, C))


@block(3)
def residual_convolution(draw, C, H, W):
    def forward(self, x):
        out = self.bn(self.conv(x))
        out += x
        return F.relu(out, inplace=draw_in_place)

    draw_in_place = draw.yes()
    parts = {"conv": nn.Conv2d(C, C, 3, 1, 1, bias=False), "bn": randomised(nn.BatchNorm2d(C))}
    return made((C, H, W), forward, **parts)


@block(3)
def pooled(draw, C, H, W):
    size = draw.size(3)
    kind = draw.of(nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
    return kind(size), (C, size, size)


@block(3)
def patches(draw, C, H, W):
    """Pixels as a sequence."""
    return made((H * W, C), lambda self, x: x.flatten(2).transpose(1, 2))


@block(3)
def rows_as_a_sequence(draw, C, H, W):
    return made((H, C * W), lambda self, x: x.transpose(1, 2).flatten(2))
