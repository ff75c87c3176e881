"""Blocks of random networks: vectors (D,), sequences (T, D), images (C, H, W) and tokens.

A block is a function ``block(draw, *shape) -> (module, shape of its output)``, samples first and
not counted. ``BLOCKS[len(shape)]`` maps the kinds that take such a shape to their blocks, and
``STARTS`` those that take integer tokens.
"""

import math
import random

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

from .nets import Wrap

BLOCKS, STARTS = {1: {}, 2: {}, 3: {}}, {}
VOCABULARY = 7


class Draw:
    """Random choices for a network of n samples; sizes are often those of batches."""

    def __init__(self, seed, n):
        self.random, self.n, self.kinds, self.depth = random.Random(seed), n, [], 0

    def size(self, most=6):
        """A small size, often that of a batch."""
        one = self.of(self.n, self.n, 2, 3, self.random.randint(1, most))
        return min(one, most)

    def of(self, *options):
        """One of the options."""
        return self.random.choice(options)

    def yes(self):
        """True or False."""
        return self.random.random() < 0.5

    def block(self, *shape):
        """A random block for a shape."""
        kind = self.random.choice(list(BLOCKS[len(shape)]))
        self.kinds.append(kind)
        return BLOCKS[len(shape)][kind](self, *shape)

    def vectors(self, D, out=None):
        """A random block of vectors, as ``(n, D) -> (n, out)``."""
        self.depth += 1
        if self.depth > 2:
            module, shape = nn.Linear(D, D), (D,)
        else:
            module, shape = self.block(D)
        self.depth -= 1
        last = nn.Linear(math.prod(shape), out or D)
        return module if shape == (out or D,) else nn.Sequential(module, nn.Flatten(), last)


def block(*where):
    """Register a block by its function's name."""

    def register(function):
        for axes in where:
            table = STARTS if axes == "tokens" else BLOCKS[axes]
            table[function.__name__] = function
        return function

    return register


def made(shape, forward, **parts):
    """A block of modules and parameters by name."""
    return Wrap(forward, **parts), shape


def weight(*shape):
    """A random parameter."""
    return nn.Parameter(torch.randn(shape) / max((1, *shape[-1:])) ** 0.5)


def randomised(module):
    """A normalisation with scales, shifts and running statistics away from their first values.

    For a batch of one, torch 2.13 takes the gradient of a BatchNorm's weight wrongly where that
    of its output is in another memory order: two views bring it into the usual one.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.rand_like(tensor) + 0.5
    return Wrap(lambda self, x: self.norm(x).flatten(1).view_as(x), norm=module)


# -- products with a matrix -----------------------------------------------------------------


@block(1, 2)
def linear(draw, *shape):
    out = draw.size()
    return nn.Linear(shape[-1], out, bias=draw.yes()), (*shape[:-1], out)


@block(1, 2)
def functional_linear(draw, *shape):
    out = draw.size()
    return made(
        (*shape[:-1], out),
        lambda self, x: F.linear(x, self.w, self.b),
        w=weight(out, shape[-1]),
        b=weight(out) if draw.yes() else None,
    )


@block(1, 2)
def product(draw, *shape):
    out = draw.size()
    return made((*shape[:-1], out), lambda self, x: x @ self.w, w=weight(shape[-1], out))


@block(1)
def product_from_the_left(draw, D):
    out, transposed = draw.size(), draw.yes()
    w = weight(D, out) if transposed else weight(out, D)
    return made((out,), lambda self, x: ((self.w.T if transposed else self.w) @ x.T).T, w=w)


@block(2)
def product_over_time(draw, T, D):
    out = draw.size()
    return made((out, D), lambda self, x: self.w @ x, w=weight(out, T))


@block(1, 2)
def addmm(draw, *shape):
    """As in GPT-2's ``Conv1D``."""
    out = draw.size()

    def forward(self, x):
        return torch.addmm(self.b, x.reshape(-1, shape[-1]), self.w).view(*x.shape[:-1], out)

    b = weight(1 if draw.of(0, 0, 1) else out)
    return made((*shape[:-1], out), forward, w=weight(shape[-1], out), b=b)


@block(1)
def einsum(draw, D):
    out, turned = draw.size(), draw.yes()
    equation = "nd,od->no" if turned else "nd,do->no"
    w = weight(out, D) if turned else weight(D, out)
    return made((out,), lambda self, x: torch.einsum(equation, x, self.w), w=w)


@block(2)
def einsum_by_position(draw, T, D):
    out = draw.size()
    equation, w = draw.of(
        ("ntd,tdo->nto", weight(T, D, out)),
        ("ntd,do->nto", weight(D, out)),
        ("ntd,to->nod", weight(T, out)),
    )
    shape = (out, D) if equation.endswith("nod") else (T, out)
    return made(shape, lambda self, x: torch.einsum(equation, x, self.w), w=w)


@block(1)
def bilinear(draw, D):
    out = draw.size(4)
    return made(
        (out,), lambda self, x: self.b(x, x.tanh()), b=nn.Bilinear(D, D, out, bias=draw.yes())
    )


@block(1)
def heads_by_bmm(draw, D):
    """A stack of weights, the heads first."""
    heads, d, out = draw.size(4), draw.size(4), draw.size(4)

    def forward(self, x):
        h = self.a(x).reshape(len(x), heads, d).transpose(0, 1)
        h = torch.bmm(h, self.w) if bmm else h @ self.w
        return h.transpose(0, 1).reshape(len(x), heads * out)

    bmm = draw.yes()
    return made((heads * out,), forward, a=nn.Linear(D, heads * d), w=weight(heads, d, out))


@block(1)
def weights_by_sample(draw, D):
    """A network that makes the weights of another."""
    d, out = draw.size(3), draw.size(3)

    def forward(self, x):
        w = self.make(x).view(len(x), d, out)
        return torch.bmm(self.a(x).unsqueeze(1), w).squeeze(1)

    return made((out,), forward, make=nn.Linear(D, d * out), a=nn.Linear(D, d))


@block(1)
def low_rank(draw, D):
    rank = draw.size(3)

    def forward(self, x):
        return F.linear(x, self.a.weight + self.up @ self.down, self.a.bias)

    return made((D,), forward, a=nn.Linear(D, D), up=weight(D, rank), down=weight(rank, D))


@block(1)
def tensordot(draw, D):
    out = draw.size()
    return made((out,), lambda self, x: torch.tensordot(x, self.w, dims=1), w=weight(D, out))


@block(1)
def dot_with_a_vector(draw, D):
    return made((D + 1,), lambda self, x: torch.cat([x, (x @ self.w)[:, None]], 1), w=weight(D))


# -- weights taken apart and put together ------------------------------------------------------


@block(1)
def pieces(draw, D):
    """One parameter in pieces: a chunk, a split, rows, a slice."""
    how = draw.of("chunk", "split", "unbind", "iterate", "slice", "columns", "overlap")

    def forward(self, x):
        if how in ("unbind", "iterate"):
            rows = self.w.unbind(0) if how == "unbind" else list(self.w)
            return torch.stack([(x * row).sum(1) for row in rows], 1)
        if how == "columns":
            return x @ self.w[:, :D] + x.tanh() @ self.w[:, D:]
        first, second = {
            "chunk": lambda: self.w.chunk(2),
            "split": lambda: self.w.split([D, D]),
            "slice": lambda: (self.w[:D], self.w[D:]),
            "overlap": lambda: (self.w[: D + 1], self.w[D - 1 :]),
        }[how]()
        return F.linear(x, first).tanh()[:, :D] + F.linear(x, second)[:, :D]

    w = weight(D, 2 * D) if how == "columns" else weight(2 * D, D)
    return made((2 * D if how in ("unbind", "iterate") else D,), forward, w=w)


@block(1)
def reshaped(draw, D):
    out = draw.size()
    return made((out,), lambda self, x: F.linear(x, self.w.view(out, D)), w=weight(out * D))


@block(1)
def transposed_parameter(draw, D):
    """A parameter that is not contiguous."""
    out = draw.size()
    w = nn.Parameter(torch.randn(D, out).T)
    return made((out,), lambda self, x: F.linear(x, self.w), w=w)


@block(1)
def derived(draw, D):
    """A weight computed from a parameter."""
    how = draw.of(
        lambda w: w.cumsum(0),
        lambda w: w.softmax(1),
        lambda w: w / w.norm(),
        lambda w: w.tril(),
        lambda w: w @ w.T,
        lambda w: torch.matrix_exp(0.1 * w),
        lambda w: torch.linalg.inv(w + 4 * torch.eye(D, dtype=w.dtype)),
        lambda w: torch.kron(w[:1, :1], w),
        lambda w: torch.max(w, 1).values.diag(),
        lambda w: torch._foreach_mul([w], 2.0)[0],
        lambda w: torch.stack(list(w))[:, :D],
        lambda w: w.roll(1, 0).flip(1),
        lambda w: w.masked_fill(torch.eye(D, dtype=torch.bool), 0.0),
    )
    return made((D,), lambda self, x: x @ how(self.w), w=weight(D, D))


@block(1)
def built_by_assignment(draw, D):
    """A matrix of zeros that parameters are written into."""

    def forward(self, x):
        w = torch.eye(D, dtype=x.dtype)
        w[0] = self.row
        if mixed:
            w = w + self.a.weight
        return F.linear(x, w)

    mixed = draw.yes()
    return made((D,), forward, row=weight(D), a=nn.Linear(D, D))


class Symmetric(nn.Module):
    """A parametrisation."""

    def forward(self, w):
        return w + w.T


@block(1)
def parametrised(draw, D):
    how = draw.of("weight_norm", "spectral_norm", "orthogonal", "symmetric")
    layer = nn.Linear(D, D if how == "symmetric" else draw.size())
    if how == "symmetric":
        parametrize.register_parametrization(layer, "weight", Symmetric())
    else:
        getattr(parametrizations, how)(layer)
    return layer, (layer.out_features,)


@block(1)
def tied(draw, D):
    """One layer at two places, or its weight transposed."""
    turned = draw.yes()

    def forward(self, x):
        h = self.a(x).tanh()
        return h @ self.a.weight if turned else self.a(h)

    return made((D,), forward, a=nn.Linear(D, D, bias=draw.yes()))


@block(1)
def used_by_several_operations(draw, D):
    def forward(self, x):
        return F.linear(x * self.w[0], self.w) + self.w.sum(0) + x @ self.w.tanh()

    return made((D,), forward, w=weight(D, D))


@block(1)
def by_foreign_means(draw, D):
    """Operations with weights that no rule may know."""
    how = draw.of(
        lambda x, w: F.cosine_similarity(x[:, None], w, dim=2),
        lambda x, w: torch.cdist(x, w),
        lambda x, w: torch.lerp(x, w[0], 0.3),
        lambda x, w: torch.addcmul(x, x, w[0]),
        lambda x, w: torch.baddbmm(w[:1, None], x[:, None], w.expand(len(x), D, D)).squeeze(1),
        lambda x, w: torch.logaddexp(x, w[0]),
        lambda x, w: F.softplus(x) ** w[0].sigmoid(),
        lambda x, w: (x[:, :, None] * w).sum(1),
        lambda x, w: torch.outer(x[:, 0], w[0]),
        lambda x, w: torch.vmap(lambda row: w @ row)(x),
        lambda x, w: torch.linalg.solve(w + 4 * torch.eye(D, dtype=w.dtype), x.T).T,
        lambda x, w: F.embedding(x[:, 0].long() % D, w),
        lambda x, w: w[x[:, 0].long() % D] * x,
        lambda x, w: w.index_select(0, x[:, 0].long() % D) + x,
        lambda x, w: F.conv1d(x[:, None], w[:1, None, :1]).squeeze(1),
        lambda x, w: F.one_hot(x[:, 0].long() % D, D).to(x) @ w,
    )
    return made((D,), lambda self, x: how(x, self.w), w=weight(D, D))


class HiddenProduct(torch.autograd.Function):
    """A product by a custom function."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w.T

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g @ w, g.T @ x


class StraightThrough(torch.autograd.Function):
    """A weight rounded, its gradient passed on."""

    @staticmethod
    def forward(ctx, w):
        return (8 * w).round() / 8

    @staticmethod
    def backward(ctx, g):
        return g


@block(1)
def custom_function(draw, D):
    out = draw.size()
    return made((out,), lambda self, x: HiddenProduct.apply(x, self.w), w=weight(out, D))


@block(1)
def quantised(draw, D):
    """A rounded weight, times a learned scale."""
    out = draw.size()

    def forward(self, x):
        return F.linear(x, StraightThrough.apply(self.w) * self.scale)

    return made((out,), forward, w=weight(out, D), scale=weight(draw.of(1, out), 1))


# -- element by element -------------------------------------------------------------------------


@block(1, 2, 3)
def activation(draw, *shape):
    kind = draw.of(nn.Tanh, nn.GELU, nn.SiLU, nn.ELU, nn.Softplus)
    return kind(), shape


@block(1, 2, 3)
def rectifier_in_place(draw, *shape):
    leaky = draw.yes()
    after = nn.LeakyReLU(0.2, inplace=True) if leaky else nn.ReLU(inplace=True)
    return nn.Sequential(nn.Linear(shape[-1], shape[-1]), after), shape


@block(1, 2, 3)
def scale(draw, *shape):
    """A layer scale, a position embedding, a shift: parameters of any broadcast shape."""
    kept = draw.random.randint(0, len(shape))
    sizes = tuple(s if draw.yes() else 1 for s in shape[kept:])
    sizes = (1, *shape) if draw.of(0, 0, 1) else sizes
    how = draw.of(
        lambda x, w: x * w,
        lambda x, w: w * x,
        lambda x, w: x + w,
        lambda x, w: w - x,
        lambda x, w: x / (2 + w.tanh()),
        lambda x, w: torch.where(x > 0, x, w),
        lambda x, w: torch.maximum(x, w),
        lambda x, w: (1 + w) * x,
        lambda x, w: x.mul(w).add_(w),
    )
    return made(shape, lambda self, x: how(x, self.w), w=weight(*sizes))


@block(1, 2)
def in_place_with_a_parameter(draw, *shape):
    def forward(self, x):
        h = self.a(x)
        h += x
        h *= self.w
        return h

    return made(shape, forward, a=nn.Linear(shape[-1], shape[-1]), w=weight(shape[-1]))


@block(1, 2, 3)
def prelu(draw, *shape):
    channels = shape[-1] if len(shape) == 1 else shape[0]
    return nn.PReLU(draw.of(1, channels)), shape


@block(1, 2)
def gates(draw, *shape):
    how = draw.of(
        lambda x, a, b: torch.max(x * a, x * b),
        lambda x, a, b: torch.where(x > 0, x * a, b.expand_as(x)),
        lambda x, a, b: torch.sigmoid(x * a) * x + b,
        lambda x, a, b: torch.stack([x * a, x + b]).amax(0),
        lambda x, a, b: F.glu(torch.cat([x * a, x * b], -1)),
    )
    D = shape[-1]
    return made(shape, lambda self, x: how(x, self.a, self.b), a=weight(D), b=weight(D))


# -- normalisations ------------------------------------------------------------------------------


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


# -- convolutions --------------------------------------------------------------------------------


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


# -- sequences ------------------------------------------------------------------------------------


@block(2)
def position_parameter(draw, T, D):
    shape = draw.of((T, D), (1, T, D), (T, 1), (T + 2, D))
    return made((T, D), lambda self, x: x + self.w[..., -T:, :], w=weight(*shape))


@block(2)
def position_embedding(draw, T, D):
    one_row = draw.yes()

    def forward(self, x):
        positions = torch.arange(T)
        return x + self.embed(positions[None] if one_row else positions)

    return made((T, D), forward, embed=nn.Embedding(T + draw.of(0, 2), D))


@block(2)
def class_token(draw, T, D):
    how = draw.of("expand", "repeat", "expand_as", "zeros", "assign")

    def forward(self, x):
        if how == "assign":
            out = x.new_zeros(len(x), T + 1, D)
            out[:, 0] = self.token[0]
            out[:, 1:] = x
            return out
        token = {
            "expand": lambda: self.token.expand(len(x), -1, -1),
            "repeat": lambda: self.token.repeat(len(x), 1, 1),
            "expand_as": lambda: self.token.expand_as(x[:, :1]),
            "zeros": lambda: self.token + torch.zeros(len(x), 1, D, dtype=x.dtype),
        }[how]()
        return torch.cat([token, x], 1)

    return made((T + 1, D), forward, token=weight(1, 1, D))


@block(2)
def attention(draw, T, D):
    heads = draw.of(1, 2)
    E, batch_first = heads * draw.size(3), draw.yes()
    other, masked = draw.of(None, draw.size(4)), draw.of(None, None, "causal", "padding", "float")
    layer = nn.MultiheadAttention(
        E,
        heads,
        bias=draw.yes(),
        add_bias_kv=draw.yes(),
        add_zero_attn=draw.of(False, False, True),
        kdim=other,
        vdim=other and draw.size(4),
        batch_first=batch_first,
    )

    def forward(self, x):
        k, v = self.k(x), self.v(x)
        q = self.q(x)
        options = {}
        if masked in ("causal", "float"):
            upper = torch.ones(T, T).triu(1).bool()
            options["attn_mask"] = upper if masked == "causal" else upper.to(x.dtype)
        if masked == "padding":
            mask = x[:, :, 0] > 1
            options["key_padding_mask"] = mask & (torch.arange(T) > 0)
        if not batch_first:
            q, k, v = (t.transpose(0, 1) for t in (q, k, v))
        out = self.layer(q, k, v, need_weights=weights, **options)[0]
        return out if batch_first else out.transpose(0, 1)

    weights = draw.yes()
    parts = {"q": nn.Linear(D, E), "k": nn.Linear(D, layer.kdim), "v": nn.Linear(D, layer.vdim)}
    return made((T, E), forward, layer=layer, **parts)


@block(2)
def attention_to_itself(draw, T, D):
    """Packed projections: query, key and value are one tensor."""
    batch_first = draw.yes()
    layer = nn.MultiheadAttention(D, draw.of(1, D), batch_first=batch_first)

    def forward(self, x):
        x = x if batch_first else x.transpose(0, 1)
        out = self.layer(x, x, x)[0]
        return out if batch_first else out.transpose(0, 1)

    return made((T, D), forward, layer=layer)


@block(2)
def learned_queries(draw, T, D):
    """Cross-attention of parameters to the sequence."""
    count, by_hand = draw.size(4), draw.yes()

    def forward(self, x):
        if by_hand:
            scores = torch.einsum("qd,ntd->nqt", self.q, self.k(x)) + self.bias
            return scores.softmax(-1) @ x
        q = self.q.expand(len(x), count, D)
        return self.layer(q, x, x)[0]

    parts = {"k": nn.Linear(D, D), "bias": weight(count, T)} if by_hand else {}
    layer = None if by_hand else nn.MultiheadAttention(D, 1, batch_first=True)
    return made((count, D), forward, q=weight(count, D), layer=layer, **parts)


@block(2)
def attention_by_hand(draw, T, D):
    """One projection in three chunks, a relative bias, several heads."""
    heads = draw.of(1, 2)
    d = draw.size(3)
    fused = draw.yes()

    def forward(self, x):
        n = len(x)
        qkv = self.qkv(x).reshape(n, T, 3, heads, d).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if fused:
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            out = ((q @ k.transpose(-2, -1)) + self.bias).softmax(-1) @ v
        return out.transpose(1, 2).reshape(n, T, heads * d)

    qkv = nn.Linear(D, 3 * heads * d, bias=draw.yes())
    return made((T, heads * d), forward, qkv=qkv, bias=weight(heads, T, T))


@block(2)
def transformer_layer(draw, T, D):
    heads = draw.of(1, 2)
    E, batch_first = heads * draw.of(2, 3), draw.yes()
    layer = nn.TransformerEncoderLayer(
        E,
        heads,
        draw.size(),
        batch_first=batch_first,
        norm_first=draw.yes(),
        activation=draw.of("relu", "gelu"),
        bias=draw.yes(),
    )

    def forward(self, x):
        x = self.a(x)
        out = self.layer(x if batch_first else x.transpose(0, 1))
        return out if batch_first else out.transpose(0, 1)

    return made((T, E), forward, a=nn.Linear(D, E), layer=layer)


@block(2)
def decoder_layer(draw, T, D):
    batch_first, E = draw.yes(), 4
    layer = nn.TransformerDecoderLayer(E, 2, 3, batch_first=batch_first)

    def forward(self, x):
        x = self.a(x)
        x = x if batch_first else x.transpose(0, 1)
        out = self.layer(x, x.tanh())
        return out if batch_first else out.transpose(0, 1)

    return made((T, E), forward, a=nn.Linear(D, E), layer=layer)


@block(2)
def recurrent(draw, T, D):
    kind, hidden = draw.of(nn.LSTM, nn.GRU, nn.RNN), draw.size(4)
    batch_first, both, layers = draw.yes(), draw.yes(), draw.of(1, 1, 2, 3)
    projected = {"proj_size": hidden - 1} if kind is nn.LSTM and hidden > 1 and draw.yes() else {}
    layer = kind(
        D, hidden, layers, bias=draw.yes(), batch_first=batch_first, bidirectional=both, **projected
    )
    learned = draw.of(False, False, True) and not projected

    def forward(self, x):
        x = x if batch_first else x.transpose(0, 1)
        state = None
        if learned:
            state = self.state.expand(layers * (1 + both), x.shape[not batch_first], hidden)
            state = (state, state.tanh()) if kind is nn.LSTM else state
            state = tuple(s.contiguous() for s in state) if kind is nn.LSTM else state.contiguous()
        out = self.layer(x, state)[0]
        return out if batch_first else out.transpose(0, 1)

    width = (projected.get("proj_size") or hidden) * (1 + both)
    state = weight(draw.of(1, layers * (1 + both)), 1, hidden)
    return made((T, width), forward, layer=layer, state=state)


@block(2)
def last_state(draw, T, D):
    """The state, layers first, that a recurrent layer ends with."""
    hidden, layers = draw.size(4), draw.of(1, 2, 3)
    layer = nn.GRU(D, hidden, layers, batch_first=True)
    return made(
        (layers, hidden), lambda self, x: self.layer(x)[1].transpose(0, 1), layer=layer
    )  # fmt: skip


@block(2)
def cells(draw, T, D):
    """A cell in a loop over time, from zeros or a learned state."""
    kind, hidden, learned = draw.of(nn.LSTMCell, nn.GRUCell, nn.RNNCell), draw.size(4), draw.yes()
    given = draw.yes()

    def forward(self, x):
        n, out, state = len(x), [], None
        if given:
            start = self.start.expand(n, hidden) if learned else x.new_zeros(n, hidden)
            state = (start, start) if kind is nn.LSTMCell else start
        for t in range(T):
            state = self.cell(x[:, t], state)
            out.append(state[0] if kind is nn.LSTMCell else state)
        return torch.stack(out, 1)

    return made((T, hidden), forward, cell=kind(D, hidden), start=weight(hidden))


@block(2)
def loop_from_zeros(draw, T, D):
    """A recurrence by hand, whose first state is a constant."""
    H = draw.size(4)

    def forward(self, x):
        h = torch.zeros(len(x), H, dtype=x.dtype)
        for t in range(T):
            h = torch.tanh(self.a(x[:, t]) + self.b(h))
        return h

    return made((H,), forward, a=nn.Linear(D, H), b=nn.Linear(H, H))


@block(2)
def position_by_position(draw, T, D):
    """One layer called at every position."""
    out, first = draw.size(), draw.yes()

    def forward(self, x):
        if first:
            return torch.stack([self.a(x_t) for x_t in x.unbind(1)], 1)
        return torch.cat([self.a(x[:, t : t + 1]) for t in range(T)], 1)

    return made((T, out), forward, a=nn.Linear(D, out))


@block(2)
def sequence_first(draw, T, D):
    """Another block over sequences turned around, and back."""
    inner = draw.of(
        lambda: nn.Sequential(nn.Linear(D, D), nn.Tanh()),
        lambda: nn.RNN(D, D),
        lambda: nn.TransformerEncoderLayer(D, 1, 2),
        lambda: randomised(nn.LayerNorm(D)) if D > 1 else nn.Identity(),
    )()

    def forward(self, x):
        out = self.inner(x.transpose(0, 1))
        out = out[0] if isinstance(out, tuple) else out
        return out.transpose(0, 1)

    return made((T, D), forward, inner=inner)


@block(2)
def positions_as_samples(draw, T, D):
    """``(n * T, D)`` or ``(T * n, D)``, and back."""
    time_first = draw.yes()

    def forward(self, x):
        n = len(x)
        if not time_first:
            return self.inner(x.reshape(n * T, D)).reshape(n, T, -1)
        h = self.inner(x.transpose(0, 1).reshape(T * n, D))
        return h.reshape(T, n, -1).transpose(0, 1)

    return made((T, D), forward, inner=draw.vectors(D))


@block(2)
def mixer(draw, T, D):
    return made(
        (T, D), lambda self, x: x + self.a(x.transpose(1, 2)).transpose(1, 2), a=nn.Linear(T, T)
    )


@block(2)
def ragged(draw, T, D):
    """A layer on those positions that a mask selects."""

    def forward(self, x):
        mask = x[:, :, 0] > 0
        out = torch.zeros_like(x)
        if by_index:
            return out.index_put((mask,), self.a(x[mask]))
        out[mask] = self.a(x[mask])
        return out

    by_index = draw.yes()
    return made((T, D), forward, a=nn.Linear(D, D))


@block(2)
def windows(draw, T, D):
    size = draw.random.randint(1, T)

    def forward(self, x):
        return self.a(x.unfold(1, size, 1).flatten(2))

    out = draw.size()
    return made((T - size + 1, out), forward, a=nn.Linear(D * size, out))


@block(2)
def rearranged(draw, T, D):
    """Positions in another order, or other positions, and a layer on them."""
    order = torch.randperm(T)
    how, count = draw.of(
        (lambda x: x.roll(1, 1), T),
        (lambda x: x.flip(1), T),
        (lambda x: x.cumsum(1), T),
        (lambda x: x[:, order], T),
        (lambda x: x.index_select(1, order), T),
        (lambda x: x.gather(1, x[:, :, :1].argsort(1).expand_as(x)), T),
        (lambda x: x.sort(1).values, T),
        (lambda x: x.topk(1, dim=1).values, 1),
        (lambda x: torch.stack([x, x.tanh()], 2).flatten(1, 2), 2 * T),
        (lambda x: x.repeat_interleave(2, 1), 2 * T),
        (lambda x: x.tile(1, 2, 1), 2 * T),
        (lambda x: F.pad(x, (0, 0, 1, 1)), T + 2),
        (lambda x: x.transpose(0, 1).flip(0).transpose(0, 1), T),
        (lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), T),
    )
    return made((count, D), lambda self, x: self.a(how(x)), a=nn.Linear(D, D))


@block(2)
def pairwise(draw, T, D):
    """A layer on all pairs of positions."""

    def forward(self, x):
        pairs = x[:, :, None] - x[:, None] if subtracted else x[:, :, None] * x.unsqueeze(1)
        return self.a(pairs).tanh().sum(2)

    subtracted = draw.yes()
    return made((T, D), forward, a=nn.Linear(D, D))


@block(2)
def position_counter(draw, T, D):
    """Embeddings of a counter, one entry a sample."""

    def forward(self, x):
        position, out = torch.zeros(len(x), dtype=torch.int64), []
        for t in range(T):
            out.append(x[:, t] + self.embed(position))
            position = position + 1
        return torch.stack(out, 1)

    return made((T, D), forward, embed=nn.Embedding(T, D))


@block(2)
def as_image(draw, T, D):
    return made((1, T, D), lambda self, x: x.unsqueeze(1))


@block(2)
def pooled_sequence(draw, T, D):
    how, shape = draw.of(
        (lambda x: x.mean(1), (D,)),
        (lambda x: x[:, -1], (D,)),
        (lambda x: x.flatten(1), (T * D,)),
        (lambda x: x.max(1).values, (D,)),
        (lambda x: x.transpose(0, 1).sum(0), (D,)),
        (lambda x: x.transpose(1, 2).reshape(len(x), -1), (D * T,)),
        (lambda x: x[torch.arange(len(x)), x[:, :, 0].argmax(1)], (D,)),
        (lambda x: x.logsumexp(1), (D,)),
    )
    return made(shape, lambda self, x: how(x))


# -- wirings of vectors ------------------------------------------------------------------------


@block(1)
def as_sequence(draw, D):
    T, d = draw.size(4), draw.size(4)
    return made((T, d), lambda self, x: self.a(x).view(len(x), T, d), a=nn.Linear(D, T * d))


@block(1)
def residual(draw, D):
    return made((D,), lambda self, x: x + self.inner(x), inner=draw.vectors(D))


@block(1)
def scaled_residual(draw, D):
    inner, w = draw.vectors(D), weight(draw.of(1, D))
    return made((D,), lambda self, x: x + self.w * self.inner(x), inner=inner, w=w)


@block(1)
def branches(draw, D):
    return made(
        (2 * D,),
        lambda self, x: torch.cat([self.a(x), self.b(x)], 1),
        a=draw.vectors(D),
        b=draw.vectors(D),
    )


@block(1)
def twice(draw, D):
    return made((D,), lambda self, x: self.inner(self.inner(x).tanh()), inner=draw.vectors(D))


@block(1)
def checkpointed(draw, D):
    return made(
        (D,),
        lambda self, x: checkpoint(self.inner, x, use_reentrant=False),
        inner=draw.vectors(D),
    )


@block(1)
def some_rows(draw, D):
    """A block on the rows under a mask."""
    how = draw.of("assign", "index_put", "where", "product", "masked_scatter")

    def forward(self, x):
        mask = x[:, 0] > x.new_zeros(())
        if how == "where":
            return torch.where(mask[:, None], self.inner(x), x)
        if how == "product":
            return x + mask[:, None] * self.inner(x)
        if not mask.any():
            return x
        if how == "index_put":
            return x.index_put((mask,), self.inner(x[mask]))
        if how == "masked_scatter":
            return x.masked_scatter(mask[:, None], self.inner(x[mask]))
        out = x.clone()
        out[mask] = self.inner(x[mask])
        return out

    return made((D,), forward, inner=draw.vectors(D))


@block(1)
def experts(draw, D):
    """Rows are sent to the expert that a router prefers."""
    count, by_index = draw.of(2, 3), draw.yes()
    weighted, added = draw.yes(), draw.yes()

    def forward(self, x):
        scores = self.router(x)
        chosen = scores.argmax(1)
        out = torch.zeros_like(x)
        for k in range(count):
            rows = (chosen == k).nonzero()[:, 0] if by_index else chosen == k
            if len(rows) == 0 or not (chosen == k).any():
                continue
            value = getattr(self, f"expert{k}")(x[rows])
            value = value * scores.softmax(1)[rows, k].unsqueeze(1) if weighted else value
            if added and by_index:
                out = out.index_add(0, rows, value)
            else:
                out[rows] = value
        return out

    parts = {f"expert{k}": draw.vectors(D) for k in range(count)}
    return made((D,), forward, router=nn.Linear(D, count), **parts)


@block(1)
def sorted_rows(draw, D):
    """Rows are sorted, a block is applied, and they are put back."""
    how = draw.of("index", "gather", "select", "flip", "roll", "sort")

    def forward(self, x):
        order = x[:, 0].argsort(stable=True)
        back = order.argsort()
        if how == "index":
            return self.inner(x[order])[back]
        if how == "select":
            return self.inner(x.index_select(0, order)).index_select(0, back)
        if how == "flip":
            return self.inner(x.flip(0)).flip(0)
        if how == "roll":
            return self.inner(x.roll(1, 0)).roll(-1, 0)
        if how == "sort":
            order = x[:, 0].sort(stable=True).indices
            return self.inner(x[order])[order.argsort()]
        h = self.inner(x.gather(0, order[:, None].expand_as(x)))
        return h.gather(0, back[:, None].expand_as(h))

    return made((D,), forward, inner=draw.vectors(D))


@block(1)
def copies_of_samples(draw, D):
    """Each sample several times, one after the other or all in turn, averaged in the end."""
    times, in_turn = draw.of(2, 3, draw.n), draw.yes()

    def forward(self, x):
        if in_turn:
            return self.inner(x.repeat(times, 1)).unflatten(0, (times, len(x))).mean(0)
        h = self.inner(x.repeat_interleave(times, 0))
        return h.unflatten(0, (len(x), times)).mean(1)

    return made((D,), forward, inner=draw.vectors(D))


@block(1)
def written_state(draw, D):
    """A state that begins as a constant, and is written to after its use."""
    samples = draw.yes()

    def forward(self, x):
        state = torch.zeros(len(x), D, dtype=x.dtype)
        shift = state + self.w
        state += x if samples else 1.0
        return x.tanh() + shift + state

    return made((D,), forward, w=weight(D))


@block(1)
def cell_of_a_vector(draw, D):
    """An LSTM cell that takes several steps."""
    H, steps = draw.size(4), draw.of(1, 2, 3)

    def forward(self, x):
        state = None
        for _ in range(steps):
            state = self.cell(x, state)
        return torch.cat(state, 1)

    return made((2 * H,), forward, cell=nn.LSTMCell(D, H))


@block(1)
def frozen(draw, D):
    layer = nn.Linear(D, draw.size())
    for p in layer.parameters():
        p.requires_grad_(draw.yes())
    return layer, (layer.out_features,)


@block(1)
def unused(draw, D):
    def forward(self, x):
        with torch.no_grad():
            skip = self.fixed(x)
        return x + skip

    return made((D,), forward, never=nn.Linear(D, 2), fixed=nn.Linear(D, D))


@block(1)
def detached(draw, D):
    """A layer whose input, or whose weight at one of two uses, is detached."""

    def forward(self, x):
        h = self.a(x.detach()) + x
        return h + F.linear(x, self.a.weight.detach()).tanh()

    return made((D,), forward, a=nn.Linear(D, D))


@block(1)
def user_hook(draw, D):
    layer = nn.Linear(D, D)
    layer.register_forward_hook(lambda module, args, out: out * 3 + args[0])
    return layer, (D,)


# -- tokens ---------------------------------------------------------------------------------------


@block("tokens")
def embedding(draw, T):
    D = draw.size()
    padding, sparse = draw.of(None, 0, -1), draw.of(False, False, True)
    return nn.Embedding(VOCABULARY, D, padding_idx=padding, sparse=sparse), (T, D)


@block("tokens")
def embedding_with_positions(draw, T):
    D, one_row = draw.size(), draw.yes()

    def forward(self, x):
        positions = torch.arange(T)[None] if one_row else torch.arange(T)
        segments = (x > 3).long()
        return self.tokens(x) + self.positions(positions) + self.segments(segments)

    parts = {"tokens": VOCABULARY, "positions": T, "segments": 2}
    return made((T, D), forward, **{k: nn.Embedding(v, D) for k, v in parts.items()})


@block("tokens")
def embedding_bag(draw, T):
    D, mode = draw.size(), draw.of("sum", "mean", "max")
    return nn.EmbeddingBag(VOCABULARY, D, mode=mode, padding_idx=draw.of(None, 2)), (D,)


@block("tokens")
def functional_embedding(draw, T):
    D, how = draw.size(), draw.of("functional", "index", "one_hot", "select")

    def forward(self, x):
        if how == "functional":
            return F.embedding(x, self.w)
        if how == "index":
            return self.w[x]
        if how == "select":
            return self.w.index_select(0, x.flatten()).view(len(x), T, D)
        return F.one_hot(x, VOCABULARY).to(self.w.dtype) @ self.w

    return made((T, D), forward, w=weight(VOCABULARY, D))


@block("tokens")
def embedding_by_column(draw, T):
    """A table for every column, as of categorical features."""
    D = draw.size()

    def forward(self, x):
        return torch.stack([table(x[:, t]) for t, table in enumerate(self.tables)], 1)

    tables = nn.ModuleList(nn.Embedding(VOCABULARY, D) for _ in range(T))
    return made((T, D), forward, tables=tables)


@block("tokens")
def tied_with_the_head(draw, T):
    """A language model in small: the table is the head's weight, too."""
    D, functional = draw.size(), draw.yes()

    def forward(self, x):
        h = self.mix(self.embed(x).mean(1)).tanh()
        return F.linear(h, self.embed.weight) if functional else self.head(h)

    head = nn.Linear(D, VOCABULARY, bias=draw.yes())
    module, shape = made(
        (VOCABULARY,), forward, embed=nn.Embedding(VOCABULARY, D), mix=nn.Linear(D, D), head=head
    )
    module.head.weight = module.embed.weight
    return module, shape
