"""Tokens: embeddings."""

import torch
from torch import nn
from torch.nn import functional as F

from .draw import VOCABULARY, block, made, weight


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
