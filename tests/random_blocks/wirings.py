"""Wirings of vectors."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .draw import block, made, weight


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
