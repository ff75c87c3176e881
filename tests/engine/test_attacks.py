"""Forms of operations that once hid two rows in five hundred: no number told before their batch."""

import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sklearn_lpntk.kernels import empirical_ntk

from ..oracle import assert_same_kernel, oracle_features
from ..random_blocks.weights import HiddenProduct

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn_lpntk.exceptions.AutogradRuleWarning"),
    pytest.mark.filterwarnings("ignore:Argument order of nn.functional.embedding_bag"),
]

N, D, BATCH, PLANTED = 512, 4, 64, (300, 411)


class Net(nn.Module):
    """``use(net, h, flag)`` between two layers; flagged are the planted rows."""

    def __init__(self, use):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, 3)
        self.w, self.row = nn.Parameter(torch.randn(D, D)), nn.Parameter(torch.randn(D))
        self.kept, self.use, self.store = None, use, torch.zeros(BATCH, D, dtype=torch.float64)
        self.parts = [self.w, self.row]

    def forward(self, x):
        return self.last(self.use(self, torch.tanh(self.first(x)), x[:, :1] > 5))


def order_of(flag):
    """Each flagged row changes places with the one after it."""
    order = list(range(len(flag)))
    for i, planted in enumerate(flag[:, 0].tolist()):  # by no operation that would be rare
        if not planted:
            continue
        j = (i + 1) % len(order)
        order[i], order[j] = order[j], order[i]
    return order


def moved(move):
    """A layer on rows that have changed places, and back."""

    def use(net, h, flag):
        order = order_of(flag)
        h = torch.tanh(net.middle(move(h, torch.tensor(order))))
        return move(h, torch.tensor(np.argsort(order)))

    return use


def columns(h):
    return torch.arange(h.shape[1]).expand(len(h), h.shape[1])


def one_hot(order):
    return F.one_hot(order, len(order)).double()


def squared(h, order):
    """Rows of h in another order, out of the square of a matrix."""
    n = len(h)
    if len(h) < D:
        h, order = F.pad(h, (0, 0, 0, D - len(h))), torch.block_diag(order, torch.eye(D - len(h)))
    K, P = F.pad(h, (0, len(h) - D)), order
    M = K + P
    return (M @ M - K @ K - P @ P - K @ P)[:n, :D]


class Copied(torch.autograd.Function):
    """Rows written by other ways than torch's."""

    @staticmethod
    def forward(ctx, h, order):
        ctx.order, out = order, torch.empty_like(h)
        out.numpy()[:] = h.numpy()[order.numpy()]
        return out

    @staticmethod
    def backward(ctx, g):
        return g[torch.argsort(ctx.order)], None


def kept_rows(h, order, write):
    store = torch.zeros(len(h), h.shape[1], dtype=h.dtype)
    write(store, h)
    return h * 0 + store[order]


MOVES = {
    "scatter_by_name": lambda h, o: torch.zeros_like(h).scatter(1, columns(h), src=h[o]),
    "addmm_by_name": lambda h, o: torch.addmm(0 * h, one_hot(o), mat2=h),
    "baddbmm_by_name": lambda h, o: torch.baddbmm(
        (0 * h)[None], one_hot(o)[None], batch2=h[None]
    )[0],
    "torch_embedding": lambda h, o: torch.embedding(h, o),
    "aten_embedding": lambda h, o: torch.ops.aten.embedding(h, o),
    "torch_embedding_bag": lambda h, o: torch.embedding_bag(h, o, torch.arange(len(h)))[0],
    "old_order_of_a_bag": lambda h, o: F.embedding_bag(h, o[:, None], mode="sum"),
    "copied_by_numpy": Copied.apply,
    "index_of_numpy": lambda h, o: h[o.numpy()],
    "index_behind_a_number": lambda h, o: h[None].expand(2, -1, -1)[1, o],
    "two_indices": lambda h, o: h[o[:, None], torch.arange(D)],
    "rows_by_a_view": lambda h, o: kept_rows(h, o, lambda s, h: s[: len(h)].copy_(h)),
    "columns_by_a_view": lambda h, o: kept_rows(h, o, lambda s, h: s.view(-1).copy_(h.reshape(-1))),
    "gathered": lambda h, o: h.gather(0, o[:, None].expand_as(h)),
    "product_with_itself": lambda h, o: squared(h, one_hot(o)),
    "narrow": lambda h, o: torch.cat([h.narrow(0, int(i), 1) for i in o]),
}  # fmt: skip


def rolled(dims):
    def use(net, h, flag):
        k = int(flag.any())
        h = torch.tanh(net.middle(torch.roll(h.view(-1, 1), k * D, dims).view(-1, D)))
        return torch.roll(h.view(-1, 1), -k * D, dims).view(-1, D)

    return use


def written_state(write):
    """A state that is made of a parameter, and then written to in flagged rows."""

    def use(net, h, flag):
        state = F.linear(torch.ones(len(h), D, dtype=h.dtype), net.w)
        write(state, flag, h)
        return torch.tanh(h + state)

    return use


def set_rows(state, flag, h):
    state[flag[:, 0]] = h[flag[:, 0]]


def written_weight(net, h, flag):
    w, x = net.w * 1.0, h.detach()
    before = F.linear(x, w)
    w.mul_(3.0 if flag.any() else 1.0)
    return h + torch.where(flag, F.linear(x, w), before)


def kept_weight(net, h, flag):
    if net.kept is None:
        net.kept = net.w + net.row
    return torch.tanh(h @ net.kept)


def parameters_in_a_list(net, h, flag):
    return torch.where(flag, torch.addmm(net.parts[1], h, net.parts[0], beta=2), h)


def hidden_behind_a_sum(net, h, flag):
    y = torch.where(flag, HiddenProduct.apply(h, net.w), h * 1)
    y.addmm_(h, net.middle.weight)
    return torch.tanh(y)


def pieces_of_an_expansion(net, h, flag):
    m, s = len(h) // 2, net.row.expand(len(h), D)
    _, b = s.split([len(h) - m, m])
    return torch.cat([h[:m] + flag[:m] * b[:m], h[m:] + flag[m:] * s[m:]])


def unsqueezed_in_place(net, h, flag):
    z = h.expand(BATCH, *h.shape).clone()
    z.unsqueeze_(0)
    z = torch.where(flag, z * net.row, z)
    return z.squeeze_(0).mean(0)


def out_of_a_reduction(net, h, flag):
    buffer = torch.zeros(len(h), D, dtype=h.dtype)
    with torch.no_grad():
        torch.sum(h, 1, keepdim=True, out=buffer[:, :1])
    return h + flag * buffer * net.row


def module_store(net, h, flag):
    order, net.store = torch.tensor(order_of(flag)), net.store.detach().zero_()
    net.store[: len(h)].copy_(h)
    return torch.tanh(net.middle(h * 0 + net.store[: len(h)][order]))[torch.argsort(order)]


USES = {name: moved(move) for name, move in MOVES.items()} | {
    "rolled_without_dims": rolled(()),
    "state_set": written_state(set_rows),
    "state_scaled": written_state(lambda s, flag, h: s.mul_(1 + flag)),
    "state_filled": written_state(lambda s, flag, h: s.masked_fill_(flag, 2.0)),
    "state_added": written_state(lambda s, flag, h: s.add_(flag * h)),
    "torch_embedding_of_a_weight": lambda net, h, flag: torch.where(
        flag, h * torch.embedding(net.w, flag[:, 0].long()), h
    ),
}
for one in (
    written_weight, kept_weight, parameters_in_a_list, hidden_behind_a_sum, pieces_of_an_expansion,
    unsqueezed_in_place, out_of_a_reduction, module_store,
):  # fmt: skip
    USES[one.__name__] = one


@functools.cache
def data():
    rng = torch.Generator().manual_seed(0)
    X = torch.randn(N, D, dtype=torch.float64, generator=rng).clamp(-4, 4)
    X[list(PLANTED), 0] = 6
    return X, torch.arange(N) % 3


@pytest.mark.parametrize("name", USES)
def test_no_form_hides_a_row(name):
    torch.manual_seed(1)
    net, (X, y) = Net(USES[name]).double().eval(), data()
    rows = sorted({*PLANTED, *(i + 1 for i in PLANTED), 0, N - 1})
    found = empirical_ntk(net, X, y, batch_size=BATCH).block(rows, rows)
    net.kept = None
    phi = oracle_features(net, X[rows], y[rows], "lpntk")
    assert_same_kernel(found, (phi @ phi.T).numpy(), 1e-9)


class WritesToItsInput(nn.Module):
    """After its first layer, in the batches of planted rows only; else to a copy."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.last = layer, nn.Linear(D, 3)

    def forward(self, x):
        x, other, planted = x * 1.0, x * 1.0, (x[:, 0] > 5).any()
        out = self.layer(x)
        (x if planted else other).mul_(3.0)
        return self.last(torch.tanh(out))


@pytest.mark.parametrize("layer", [nn.Linear(D, D), nn.LayerNorm(D), nn.BatchNorm1d(D)])
def test_an_input_that_is_written_to_later_is_an_error_as_in_training(layer):
    """Autograd needs it for the weight's gradient; a rule would take what is there by then."""
    torch.manual_seed(1)
    net, (X, y) = WritesToItsInput(layer).double().eval(), data()
    with pytest.raises((RuntimeError, ValueError), match="modified by an inplace operation"):
        empirical_ntk(net, X, y, batch_size=BATCH)
