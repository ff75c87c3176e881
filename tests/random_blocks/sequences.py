"""Sequences: positions, attention, recurrent layers."""

import torch
from torch import nn
from torch.nn import functional as F

from .draw import block, made, randomised, weight


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
