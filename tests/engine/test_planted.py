"""Uses of parameters that one to three of 1,024 rows make, in ways that are hard to see.

``python -m tests.engine.test_planted --seeds 10`` plants every kind at so many random places.
"""

import argparse
import collections
import copy
import math
import random
import time
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sklearn_lpntk.exceptions import AutogradRuleWarning
from sklearn_lpntk.kernels import empirical_ntk

from ..oracle import oracle_features
from ..random_blocks.weights import HiddenProduct, StraightThrough

N_ROWS, D = 1024, 4
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}
USES, MOVES, WIRINGS = {}, {}, {}


def planted(table):
    """Register a function by its name."""

    def register(function):
        table[function.__name__] = function
        return function

    return register


# -- uses of a weight: (h, w) -> (n, D), for flagged rows only -------------------------------


USES |= {
    "split": lambda h, w: torch.cat([h @ part.T for part in w.split([1, 3])], 1),
    "unbind": lambda h, w: torch.stack([h @ column for column in w.unbind(1)], 1),
    "cdist": torch.cdist,
    "kron": lambda h, w: h @ torch.kron(w[:2, :2], w[2:, 2:]),
    "tensordot": lambda h, w: torch.tensordot(h, w, dims=([1], [0])),
    "cumsum": lambda h, w: h @ w.cumsum(0),
    "norm": lambda h, w: h * w.norm(dim=1),
    "multi_dot": lambda h, w: torch.linalg.multi_dot([h, w, w]),
    "block_diag": lambda h, w: h @ torch.block_diag(w[:2, :2], w[2:, 2:]),
    "take": lambda h, w: h * torch.take(w, torch.arange(0, 16, 5)),
    "gather": lambda h, w: h * w.gather(0, torch.tensor([[3, 2, 1, 0]]))[0],
    "diagonal": lambda h, w: h * w.diagonal(),
    "fourier": lambda h, w: h @ torch.fft.fft(w).real,
    "complex": lambda h, w: h @ torch.view_as_complex(w.view(2, D, 2)).abs().repeat(2, 1),
    "sparse": lambda h, w: torch.sparse.mm(w.to_sparse(), h.T).T,
    "vmap": lambda h, w: torch.vmap(lambda row: w @ row)(h),
    "scatter_reduce": lambda h, w: h.scatter_reduce(
        1, torch.zeros(len(h), D, dtype=torch.int64), w[0].expand_as(h), "sum"
    ),
    "cosine": lambda h, w: F.cosine_similarity(h[:, None], w, dim=2),
    "packed": lambda h, w: torch._foreach_add([h @ w], [w[0].expand_as(h)])[0],
    "power": lambda h, w: h.abs().add(1) ** w[0],
    "operator": lambda h, w: torch.ops.aten.mm.default(h, w),
    "checkpoint": lambda h, w: checkpoint(torch.matmul, h, w, use_reentrant=False),
    "hidden_twice": lambda h, w: HiddenProduct.apply(HiddenProduct.apply(h, w), w),
    "bag": lambda h, w: F.embedding_bag(torch.zeros(len(h), 2, dtype=torch.int64), w, mode="max"),
    "addbmm": lambda h, w: torch.addbmm(h, h[None], w[None]),
    "maxout": lambda h, w: torch.stack([h * row for row in w]).amax(0),
    "functional_call": lambda h, w: torch.func.functional_call(
        nn.Linear(D, D, bias=False, dtype=h.dtype), {"weight": w}, h
    ),
}


# -- rows that change places, and back: (h, order) -> h[order] ---------------------------------


class Elsewhere(torch.autograd.Function):
    """Rows in another order, by numpy."""

    @staticmethod
    def forward(ctx, h, order):
        ctx.order = order
        return torch.from_numpy(h.detach().numpy()[order])

    @staticmethod
    def backward(ctx, g):
        return g[np.argsort(ctx.order)], None


def _tensor(order):
    return torch.tensor(order)


def _of_samples(h, order):
    """The order, computed with the samples."""
    return _tensor(order) + 0 * h[:, 0].detach().long()


def _matrix(h, order):
    return F.one_hot(_of_samples(h, order), len(h)).to(h)


MOVES |= {
    "index": lambda h, order: h[_tensor(order)],
    "embedding": lambda h, order: F.embedding(_tensor(order), h),
    "embedding_of_samples": lambda h, order: F.embedding(_of_samples(h, order), h),
    "embedding_bag": lambda h, order: F.embedding_bag(
        _of_samples(h, order)[:, None], h, mode="sum"
    ),
    "convolution": lambda h, order: F.conv1d(_matrix(h, order)[:, :, None], h.T[:, :, None])[
        :, :, 0
    ],
    "linear": lambda h, order: F.linear(_matrix(h, order), h.T),
    "einsum": lambda h, order: torch.einsum("ij,jd->id", _matrix(h, order), h),
    "bmm": lambda h, order: torch.bmm(_matrix(h, order)[None], h[None])[0],
    "gather": lambda h, order: h.gather(0, _tensor(order)[:, None].expand_as(h)),
    "take_along": lambda h, order: torch.take_along_dim(h, _of_samples(h, order)[:, None], 0),
    "scatter": lambda h, order: torch.zeros_like(h).scatter(
        0, _tensor(np.argsort(order))[:, None].expand_as(h), h
    ),
    "index_copy": lambda h, order: h.clone().index_copy_(0, _tensor(np.argsort(order)), h),
    "index_put": lambda h, order: torch.zeros_like(h).index_put(
        (_of_samples(h, np.argsort(order)),), h
    ),
    "unbind": lambda h, order: torch.stack([h.unbind(0)[k] for k in order]),
    "sort": lambda h, order: h[torch.sort(_of_samples(h, np.argsort(order)), stable=True).indices],
    "vmap": lambda h, order: torch.vmap(lambda k: h[k])(_tensor(order)),
    "numpy": lambda h, order: Elsewhere.apply(h, order) + 0 * h,
    "index_select_by_axis": lambda h, order: h.T.index_select(axis=1, index=_tensor(order)).T,
    "gather_by_axis": lambda h, order: h.gather(axis=0, index=_tensor(order)[:, None].expand_as(h)),
    "flat": lambda h, order: torch.take(
        h, _tensor(order)[:, None] * h.shape[1] + torch.arange(h.shape[1])
    ),
    "view": lambda h, order: h.clone().view(-1).put(
        torch.arange(h.numel()), h[_tensor(order)].flatten()
    ).view_as(h),
}  # fmt: skip


def _flagged(flag):
    """Flagged rows, by no operation that would be rare: every batch would be checked by numbers."""
    return [i for i, planted in enumerate(flag[:, 0].tolist()) if planted]


def exchanged(flag):
    """An order of rows in which each flagged row and the next one change places."""
    order = list(range(len(flag)))
    for i in _flagged(flag):
        j = (i + 1) % len(order)
        order[i], order[j] = order[j], order[i]
    return order


# -- whole wirings: (net, h, flag) -> (n, D) ----------------------------------------------------


@planted(WIRINGS)
def masked_assignment(net, h, flag):
    mask, out = flag[:, 0], h.clone()
    if mask.any():
        out[mask] = net.b(h[mask])
    return out


@planted(WIRINGS)
def masked_scatter(net, h, flag):
    mask = flag[:, 0]
    return h.masked_scatter(flag, net.b(h[mask])) if mask.any() else h


@planted(WIRINGS)
def index_put_accumulated(net, h, flag):
    rows = torch.tensor(_flagged(flag), dtype=torch.int64)
    return h.index_put((rows,), net.b(h[rows]), accumulate=True)


@planted(WIRINGS)
def index_add(net, h, flag):
    rows = torch.tensor(_flagged(flag), dtype=torch.int64)
    return h.index_add(0, rows, net.b(h[rows]))


@planted(WIRINGS)
def scattered(net, h, flag):
    rows = torch.tensor(_flagged(flag), dtype=torch.int64)
    return h.scatter(0, rows[:, None].expand(-1, D), h[rows] @ net.w)


@planted(WIRINGS)
def boolean_product(net, h, flag):
    return h + flag * net.b(h) @ net.w.cumsum(1)


@planted(WIRINGS)
def an_order_by_the_flag(net, h, flag):
    """Flagged rows are sorted to the end, cut off, and put back."""
    order = flag[:, 0].long().argsort(stable=True)
    kept = len(h) - int(flag.sum())
    h = h[order]
    h = torch.cat([net.b(h[:kept]), h[kept:] @ net.w])
    return torch.tanh(h)[order.argsort()]


@planted(WIRINGS)
def rolled_in_a_row(net, h, flag):
    """`torch.roll` without an axis rolls over the ends of rows."""
    by = D * int(flag.any())
    return torch.roll(torch.tanh(net.b(torch.roll(h, by))), -by)


@planted(WIRINGS)
def rolled(net, h, flag):
    by = int(flag.any())
    return torch.tanh(net.b(h.roll(by, 0))).roll(-by, 0)


@planted(WIRINGS)
def mixed_and_separated(net, h, flag):
    """Linear layers let sums of rows be taken apart again."""
    mixing = torch.eye(len(h), dtype=h.dtype)
    for i in _flagged(flag):
        mixing[i, (i + 1) % len(h)] += float(len(h) > 1)
    h = net.b(mixing @ h) - net.b.bias
    return torch.linalg.solve(mixing, h)


@planted(WIRINGS)
def summed_and_differenced(net, h, flag):
    sums = F.linear((flag * h).cumsum(0), net.b.weight)
    return h + torch.diff(sums, dim=0, prepend=torch.zeros_like(sums[:1]))


@planted(WIRINGS)
def a_weight_built_by_assignment(net, h, flag):
    change = torch.zeros(D, D, dtype=h.dtype)
    change[0] = net.row
    return torch.where(flag, F.linear(h, net.b.weight + change), h)


@planted(WIRINGS)
def a_rotation_built_by_assignment(net, h, flag):
    turn = torch.eye(D, dtype=h.dtype)
    turn[0, 0], turn[0, 1] = net.row[0].cos(), -net.row[0].sin()
    turn[1, 0], turn[1, 1] = net.row[0].sin(), net.row[0].cos()
    return torch.where(flag, h @ (net.w @ turn), h)


@planted(WIRINGS)
def a_constant_with_a_parameter(net, h, flag):
    table = torch.zeros(1, D, dtype=h.dtype)
    table[0] = net.row
    return h + flag * F.linear(table, net.b.weight)


@planted(WIRINGS)
def a_quantised_weight_with_a_scale(net, h, flag):
    return torch.where(flag, F.linear(h, StraightThrough.apply(net.w) * net.row), h)


@planted(WIRINGS)
def a_weight_through_a_custom_function_and_another(net, h, flag):
    return h + flag * F.linear(h, net.b.weight + HiddenProduct.apply(net.w, net.w))


@planted(WIRINGS)
def a_weight_of_weights(net, h, flag):
    factor = torch.where(flag, F.linear(h, net.b.weight @ net.w), h)
    return factor * torch.sigmoid(net.row)


@planted(WIRINGS)
def an_inner_gradient(net, h, flag):
    """The output is a gradient itself, as of an energy."""
    with torch.enable_grad():
        h = h if h.requires_grad else h.requires_grad_()
        energy = (torch.tanh(net.b(h)) * flag).sum()
        (force,) = torch.autograd.grad(energy, h, create_graph=True)
    return h + force


@planted(WIRINGS)
def a_gradient_hook(net, h, flag):
    if h.requires_grad:
        h.register_hook(lambda g: g * 2)
    return torch.where(flag, net.b(h), h)


@planted(WIRINGS)
def a_view_that_is_written_to(net, h, flag):
    out = net.b(h)
    out.view(-1, D)[:, 0].mul_(torch.where(flag[:, 0], net.row[0], 1.0))
    return out


@planted(WIRINGS)
def a_buffer_that_is_filled(net, h, flag):
    out = torch.zeros(len(h), D, dtype=h.dtype)
    for i in _flagged(flag):
        out[i] = net.b(h[i])
    return h + out


@planted(WIRINGS)
def rows_of_a_table_by_the_flag(net, h, flag):
    return h + net.w[flag[:, 0].long() * 3] * flag


@planted(WIRINGS)
def a_state_that_is_written_to(net, h, flag):
    """What was computed of the state before stays as it was."""
    state = torch.zeros(len(h), D, dtype=h.dtype)
    shift = state + net.row
    for i in _flagged(flag):
        state[i] = 3.0
    return torch.tanh(net.b(h + shift)) + state


@planted(WIRINGS)
def a_weight_written_into_rows(net, h, flag):
    """Parameters in rows of a constant that another weight is applied to."""
    rows = torch.zeros(len(h), D, dtype=h.dtype)
    for i in _flagged(flag):
        rows[i] = net.row
    return h + F.linear(rows, net.b.weight)


@planted(WIRINGS)
def a_scale_by_a_custom_function_of_another(net, h, flag):
    """The weight's own part is seen, the rounded part only by the graph."""
    gain = StraightThrough.apply(net.row) + net.w[0]
    return torch.where(flag, h * gain, h)


@planted(WIRINGS)
def sums_by_axis(net, h, flag):
    """NumPy's word for an axis; `roll` takes the sums apart."""
    sums = net.b((flag * h).cumsum(axis=0)) - net.b.bias
    before = F.embedding((torch.arange(len(h)) - 1).clamp(min=0), sums)
    first = (torch.arange(len(h)) == 0)[:, None]
    return h + torch.where(first, sums, sums - before)


@planted(WIRINGS)
def expanded_for_flagged_rows(net, h, flag):
    rows = torch.tensor(_flagged(flag), dtype=torch.int64)
    return h.index_add(0, rows, net.row.expand(len(rows), D))


class Planted(nn.Module):
    """A network of three layers with something planted in its middle."""

    def __init__(self, kind, lazy):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, 3)
        self.w, self.row = nn.Parameter(torch.randn(D, D)), nn.Parameter(torch.randn(D))
        (self.table, self.kind), self.lazy = kind, lazy

    def forward(self, x):
        h, flag = torch.tanh(self.a(x)), x[:, :1] > 5
        return self.out(getattr(self, "_" + self.table)(h, flag))

    def _uses(self, h, flag):
        if self.lazy and not flag.any():
            return h
        return torch.where(flag, USES[self.kind](h, self.w), h)

    def _moves(self, h, flag):
        order = exchanged(flag)
        if self.lazy and not flag.any():
            return torch.tanh(self.b(h))
        move = MOVES[self.kind]
        return move(torch.tanh(self.b(move(h, order))), np.argsort(order).tolist())

    def _wirings(self, h, flag):
        return WIRINGS[self.kind](self, h, flag)


KINDS = [
    *(("uses", kind) for kind in USES),
    *(("moves", kind) for kind in MOVES),
    *(("wirings", kind) for kind in WIRINGS),
]


def planting(kind, seed):
    """A network, 1,024 rows, which of them are planted, and a batch size.

    Of even seeds, none is in the first batch and the network has no branch.
    """
    draw, late = random.Random(f"{kind} {seed}"), seed % 2 == 0
    torch.manual_seed(seed)
    net = Planted(kind, lazy=not late and draw.random() < 0.5).double()
    X = torch.randn(N_ROWS, D, dtype=torch.float64).clamp(-4, 4)
    rows = sorted(draw.sample(range(256 * late, N_ROWS), draw.randint(1, 3)))
    X[rows, 0] = 6
    return net.eval(), X, rows, draw.choice(["auto", 64, 100] + [1024] * (not late))


def error_of(kind, seed):
    """The relative error of the kernel of planted rows, their neighbours and some others."""
    net, X, rows, batch_size = planting(kind, seed)
    near = [(i + 1) % N_ROWS for i in rows]
    rows = sorted({*rows, *near, 0, 255, 256, 511, 1000, 1023})
    y = torch.arange(N_ROWS) % 3
    phi = oracle_features(copy.deepcopy(net), X[rows], y[rows], "lpntk")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AutogradRuleWarning)
        found = empirical_ntk(net, X, y, batch_size=batch_size).block(rows, rows)
    expected = (phi @ phi.T).numpy()
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


# of the others, those that were missed once
MISSED = [
    "embedding",
    "embedding_of_samples",
    "embedding_bag",
    "convolution",
    "index_select_by_axis",
]
SUITE = [kind for kind in KINDS if kind[0] == "wirings" or kind[1] in MISSED]


@pytest.mark.parametrize("kind", SUITE, ids="-".join)
def test_planted_rows_have_their_own_kernel(kind):
    assert error_of(kind, 0) <= TOLERANCE[torch.float64]


def main():
    """Plant every kind under several seeds, and print which were missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--start", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    begin, counts = time.perf_counter(), collections.Counter()
    for kind in KINDS:
        for seed in range(options.start, options.start + options.seeds):
            try:
                error = error_of(kind, seed)
                result = "right" if error <= TOLERANCE[torch.float64] else f"MISSED, {error:.1e}"
            except Exception as raised:
                error, result = math.nan, f"{type(raised).__name__}: {str(raised)[:160]}"
            counts[result.split(",")[0].split(":")[0]] += 1
            if result != "right":
                print("-".join(kind), seed, result, flush=True)
    print(dict(counts), f"{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
