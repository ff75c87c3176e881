"""Products with a matrix."""

import torch
from torch import nn
from torch.nn import functional as F

from .draw import block, made, weight


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
