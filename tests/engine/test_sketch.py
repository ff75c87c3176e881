"""Sketches: no bias, the documented error, whatever the factors and in whatever batches."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_lpntk._engine import sketch as sketch_module
from sklearn_lpntk._engine.factors import Dense, Outer
from sklearn_lpntk._engine.features import Features, Spec
from sklearn_lpntk._engine.sketch import Sketch
from sklearn_lpntk._engine.sparse import Lookup
from sklearn_lpntk.kernels import empirical_ntk

from ..nets import TRAPS, Wrap

N = 12


def spec(R=1):
    return Spec(N, R, 1, torch.float64, torch.device("cpu"))


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def heavy(*shape):
    """Most of the weight in a few entries: the hardest case for a hash."""
    return draw(*shape) ** 5


# factors, and which of the ways they take at 64 components
CASES = {
    "dense": (lambda: Dense(draw(N, 700), 1), "pieces"),
    "dense, heavy tails": (lambda: Dense(heavy(N, 700), 1), "pieces"),
    "dense, fewer columns than components": (lambda: Dense(draw(N, 20), 1), "pieces"),
    "dense, two cotangents": (lambda: Dense(draw(2 * N, 300), 2), "pieces"),
    "outer, small": (lambda: Outer(draw(1, N, 9), draw(1, N, 8), 1), "pieces"),
    "outer": (lambda: Outer(draw(1, N, 160), draw(1, N, 90), 1), "convolved"),
    "outer, heavy tails": (lambda: Outer(heavy(1, N, 160), heavy(1, N, 90), 1), "convolved"),
    "outer, several positions": (
        lambda: Outer(draw(3, N, 200), draw(3, N, 120), 1),
        "convolved",
    ),
    "outer, two cotangents": (lambda: Outer(draw(1, N, 160), draw(1, 2 * N, 90), 2), "convolved"),
    "outer, many positions": (lambda: Outer(draw(150, N, 45), draw(150, N, 48), 1), "scattered"),
    "outer, written out": (
        lambda: Outer(draw(3, N, 45), draw(3, N, 48), 1).materialise(),
        "scattered",
    ),
    "embedding": (
        lambda: Lookup(torch.randint(50, (3, N)), draw(3, N, 16), 1, 50),
        "lookup",
    ),
    "embedding, two cotangents": (
        lambda: Lookup(torch.randint(50, (3, N)), draw(3, 2 * N, 16), 2, 50),
        "lookup",
    ),
}
LIMITS = {"pieces": 2, "lookup": 2, "convolved": 11, "scattered": 11}


def way_taken(sketch, factor, monkeypatch):
    """The method that adds a factor, by its name."""
    taken = []
    for way in LIMITS:
        monkeypatch.setattr(sketch, f"_add_{way}", lambda *a, way=way: taken.append(way))
    sketch._add("a", factor, None)
    monkeypatch.undo()
    return taken[0]


@pytest.mark.parametrize("m", [64, 61])
@pytest.mark.parametrize("case", CASES)
def test_unbiased_with_the_documented_error(case, m, monkeypatch):
    torch.manual_seed(1)
    make, way = CASES[case]
    factor = make()
    features = Features({"a": factor}, spec(factor.n_cotangents))
    assert way_taken(Sketch(m, 0), factor, monkeypatch) == way
    exact = features.gram(features)
    draws = []
    for seed in range(300):
        sketched = Sketch(m, seed)(features)
        draws.append(sketched.gram(sketched))
    draws = torch.stack(draws)
    norms = exact.diagonal().sqrt()
    error = (draws - exact).pow(2).mean(0).sqrt() / (norms[:, None] * norms)
    limit = (LIMITS[way] / m) ** 0.5
    assert error.max() <= 1.25 * limit
    bias = (draws.mean(0) - exact) / (norms[:, None] * norms)
    assert bias.abs().max() <= 5 * limit / len(draws) ** 0.5


def test_a_lookup_is_sketched_as_if_written_out():
    """Its rows that are zero add nothing: the same columns, signs and rotations."""
    factor = Lookup(torch.randint(50, (3, N)), draw(3, N, 16), 1, 50)
    sparse = Sketch(64, 0)(Features({"a": factor}, spec()))
    written = Sketch(64, 0)(Features({"a": factor.materialise()}, spec()))
    torch.testing.assert_close(sparse.materialise(), written.materialise())


def test_one_map_whatever_the_batch_holds():
    """Another number of positions, or the sum written out: the sketch of a layer is the same."""
    few = Outer(draw(1, N, 45), draw(1, N, 48), 1)
    many = Outer(draw(150, N, 45), draw(150, N, 48), 1)
    a, b, c = (Features({"a": f}, spec()) for f in (few, many, few.materialise()))
    sketch = Sketch(64, 0)
    torch.testing.assert_close(sketch(a).materialise(), sketch(c).materialise())
    exact = a.gram(b)
    draws = torch.stack([Sketch(64, s)(a).gram(Sketch(64, s)(b)) for s in range(200)])
    norms = a.diagonal().sqrt()[:, None] * b.diagonal().sqrt()
    limit = (11 / 64) ** 0.5
    assert ((draws.mean(0) - exact) / norms).abs().max() < 5 * limit / 200**0.5


def assert_unbiased_over_seeds(net):
    X = torch.randn(6, 5).double()
    draws = [
        empirical_ntk(net, X, kernel="pntk", n_components=8, random_state=seed).diag()
        for seed in range(400)
    ]
    exact = empirical_ntk(net, X, kernel="pntk").diag()
    np.testing.assert_allclose(np.mean(draws, axis=0), exact, rtol=0.12)


def test_layers_whose_names_share_a_checksum():
    """CRC-32 of these two words is the same; equal signs would add a bias."""
    net = Wrap(
        lambda self, x: self.plumless(x) + self.buckeroo(x),
        plumless=nn.Linear(5, 3),
        buckeroo=nn.Linear(5, 3),
    ).double()
    assert_unbiased_over_seeds(net)


def test_columns_of_one_piece_never_meet():
    """So that fewer columns than components lose nothing."""
    phi = draw(N, 40)
    features = Features({"a": Dense(phi, 1)}, spec())
    sketched = Sketch(40, 3)(features)
    torch.testing.assert_close(sketched.gram(sketched), phi @ phi.T)


def test_of_a_net():
    """Every kind of layer of LeNet-5, and how the errors of its layers add up."""
    net, _, _ = TRAPS["lenet5"]()
    X, y = torch.rand(N, 1, 28, 28).double(), torch.arange(N) % 10
    exact = empirical_ntk(net, X, y).toarray()
    m = 256
    draws = np.stack(
        [
            empirical_ntk(net, X, y, n_components=m, random_state=seed).toarray()
            for seed in range(60)
        ]
    )
    norms = np.sqrt(exact.diagonal())
    limit = np.sqrt(2 / m) * np.outer(norms, norms)
    assert np.abs(draws.mean(axis=0) - exact).max() <= (5 * limit / np.sqrt(60)).max()
    assert 0.3 < np.median(draws.std(axis=0) / limit) < 1.6


def test_one_component_is_allowed():
    net, X, _ = TRAPS["lenet5"]()
    operator = empirical_ntk(net, X, torch.arange(len(X)), n_components=1, random_state=0)
    assert np.linalg.matrix_rank(operator.toarray()) == 1


def test_layers_are_sketched_independently():
    """With the same signs for both layers, equal layers would add up with a bias."""
    torch.manual_seed(0)
    net = Wrap(lambda self, x: self.a(x) + self.b(x), a=nn.Linear(5, 3), b=nn.Linear(5, 3)).double()
    assert_unbiased_over_seeds(net)


def test_a_large_layer_is_written_out_a_few_rows_at_a_time(monkeypatch):
    net, X, _ = TRAPS["lenet5"]()
    y = torch.arange(len(X))
    whole = empirical_ntk(net, X, y, n_components=64, random_state=0).toarray()
    monkeypatch.setattr(sketch_module, "WRITTEN_OUT", 100_000)
    pieces = empirical_ntk(net, X, y, n_components=64, random_state=0).toarray()
    np.testing.assert_allclose(pieces, whole, rtol=1e-10, atol=1e-12)


def test_same_seed_same_bits_in_any_batches():
    net, X, _ = TRAPS["lenet5"]()
    y = torch.arange(len(X))
    first, second, other = (
        empirical_ntk(net, X, y, n_components=64, random_state=seed, batch_size=size).toarray()
        for seed, size in ((3, 7), (3, 7), (4, 7))
    )
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - other).max() > 0
    batched = empirical_ntk(net, X, y, n_components=64, random_state=3, batch_size=2)
    np.testing.assert_allclose(batched.toarray(), first, rtol=1e-10, atol=1e-12)
