"""What the bounds leave out makes no difference: every reduction against the whole kernel."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sklearn_lpntk._engine import bounds as bounds_module
from sklearn_lpntk._engine import reductions
from sklearn_lpntk._engine.bounds import Bounds
from sklearn_lpntk._engine.factors import Dense, Outer
from sklearn_lpntk._engine.features import Features, Spec
from sklearn_lpntk._engine.reductions import dominated, refined, row_extremes
from sklearn_lpntk._engine.relations import count_relations
from sklearn_lpntk._engine.rows import SpeculativeRows
from sklearn_lpntk._engine.sources import Source, subset
from sklearn_lpntk.cluster._traversal import farthest_point_clustering
from sklearn_lpntk.kernels import KernelOperator, empirical_ntk, sample_relations

from ..nets import TRAPS


def spec(n, dtype=torch.float32):
    return Spec(n, 1, 1, dtype, torch.device("cpu"))


def operator_of(phi, tile=16):
    """The kernel of the rows of a matrix, in small tiles."""
    phi = torch.as_tensor(phi)
    operator = KernelOperator(Features({"all": Dense(phi, 1)}, spec(len(phi), phi.dtype)))
    operator.kernel.panel = operator.kernel.tile = tile
    return operator


def clustered(seed, n=300, d=200, n_groups=6, dtype=np.float32):
    """Directions in groups, norms over two orders of magnitude, some duplicates and zeros."""
    rng = np.random.default_rng(seed)
    phi = rng.normal(size=(n_groups, d))[rng.integers(n_groups, size=n)]
    phi = phi + 0.5 * rng.normal(size=(n, d))
    phi *= 10 ** rng.uniform(-1, 1, size=(n, 1))
    phi[rng.integers(n, size=5)] = phi[0]
    phi[rng.integers(n, size=2)] = 0
    return phi.astype(dtype)


def tied(seed, n=90):
    return np.random.default_rng(seed).integers(-2, 3, size=(n, 4)).astype(np.float32)


def off_diagonal(K, fill):
    K = K.copy()
    np.fill_diagonal(K, fill)
    return K


CASES = {
    "clustered": clustered,
    "double precision": lambda seed: clustered(seed, dtype=np.float64),
    "ties": tied,
    "no structure": lambda seed: np.random.default_rng(seed).normal(size=(80, 50)).astype("f4"),
    "huge and tiny": lambda seed: clustered(seed, 100) * np.float32(1e-12),
    "one direction": lambda seed: np.outer(np.arange(1, 71), np.ones(30)).astype(np.float32),
    "two samples": lambda seed: clustered(seed, 2),
    "all zero": lambda seed: np.zeros((20, 5), dtype=np.float32),
}


def bounds_of(operator, n_landmarks):
    return Bounds(operator.kernel, n_landmarks=min(n_landmarks, operator.shape[0]))


@pytest.mark.parametrize("n_landmarks", [0, 1, 20])
@pytest.mark.parametrize("case", CASES)
def test_every_entry_lies_within_its_bounds(case, n_landmarks):
    operator = operator_of(CASES[case](0))
    bounds = bounds_of(operator, n_landmarks)
    everything = torch.arange(operator.shape[0])
    K = torch.as_tensor(operator.toarray() / bounds.scale)
    low, high = bounds.between(everything, everything)
    assert (low <= K).all()
    assert (high >= K).all()
    assert (bounds.upper(everything, everything) >= K).all()
    assert (bounds.negated().upper(everything, everything) >= -K).all()
    assert sorted(bounds.order.tolist()) == everything.tolist()


def test_landmarks_tighten_the_bounds():
    operator = operator_of(clustered(0))
    everything = torch.arange(300)
    widths = [
        (high - low).mean().item()
        for low, high in (
            bounds_of(operator, r).between(everything, everything) for r in (0, 6, 40)
        )
    ]
    assert widths[0] > 1.5 * widths[1] > 1.5 * widths[2]


@pytest.fixture(params=[True, False], ids=["by bounds", "all entries"])
def bounded(request, monkeypatch):
    """Whether this device spares what bounds allow, or takes all, as a GPU does."""
    monkeypatch.setattr(reductions, "BOUNDED", ("cpu",) if request.param else ())
    return request.param


@pytest.mark.parametrize("n_landmarks", [0, 20])
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("k", [1, 3, 30])
@pytest.mark.parametrize("case", CASES)
def test_row_extremes(case, k, largest, n_landmarks, bounded):
    operator = operator_of(CASES[case](1))
    K = off_diagonal(operator.toarray(), -np.inf if largest else np.inf)
    found = row_extremes(
        operator.kernel, k, largest=largest, bounds=bounds_of(operator, n_landmarks)
    )
    order = np.argsort(-K if largest else K, axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(K, order, 1)
    got = found.values.numpy()[:, : order.shape[1]]
    np.testing.assert_array_equal(got, values)
    np.testing.assert_array_equal(
        found.indices.numpy()[:, : order.shape[1]], np.where(np.isinf(values), -1, order)
    )
    assert (found.indices.numpy()[:, order.shape[1] :] == -1).all()
    if not bounded:
        n = len(K)
        assert found.n_evaluated == n * n + min(n_landmarks, n) * n


@pytest.mark.parametrize("n_landmarks", [0, 20])
@pytest.mark.parametrize("case", CASES)
def test_dominated(case, n_landmarks, bounded):
    operator = operator_of(CASES[case](2))
    K = operator.toarray()
    found = dominated(operator.kernel, 1e-5, bounds=bounds_of(operator, n_landmarks))
    limit = K.diagonal().astype(np.float64) * (1 + 1e-5)
    expected = off_diagonal(K, -np.inf).max(axis=1) > limit
    np.testing.assert_array_equal(found.mask.numpy(), expected)


def relations_by_definition(K, t, u):
    """Appendix C, pair by pair, in terms of products: a zero norm has no ratio."""
    d = K.diagonal()
    large, small = np.maximum.outer(d, d), np.minimum.outer(d, d)
    some = small > 0
    large, small = (a.astype(np.float64) * b for a, b in ((large, t), (small, u)))
    large, small = large.astype(K.dtype), small.astype(K.dtype)
    kinds = [some & (large <= K), ~some | (np.abs(K) < small), some & (-large >= K)]
    for kind in kinds:
        np.fill_diagonal(kind, False)
    return np.stack([kind.sum(axis=1) for kind in kinds], axis=1)


@pytest.mark.parametrize("n_landmarks", [0, 20])
@pytest.mark.parametrize("thresholds", [(0.5, 0.1), (0.9, 0.9), (0.3, 0.0), (1.0, 0.5)])
@pytest.mark.parametrize("case", CASES)
def test_relations(case, thresholds, n_landmarks):
    operator = operator_of(CASES[case](3))
    counts, _ = count_relations(
        operator.kernel, *thresholds, bounds=bounds_of(operator, n_landmarks)
    )
    expected = relations_by_definition(operator.toarray(), *thresholds)
    np.testing.assert_array_equal(counts.numpy(), expected)


@pytest.mark.parametrize("n_landmarks", [0, 20])
@pytest.mark.parametrize("case", [c for c in CASES if c != "two samples"])
def test_clustering_by_speculative_rows(case, n_landmarks):
    operator = operator_of(CASES[case](4))
    K = operator.toarray()
    expected = farthest_point_clustering(K.diagonal(), lambda i, similarity: K[i], 15)
    for bounds in (None, bounds_of(operator, n_landmarks)):
        for n_ahead in (1, 8):
            rows = SpeculativeRows(operator.kernel, bounds=bounds, n_ahead=n_ahead)
            found = farthest_point_clustering(operator.diag(), rows, 15)
            np.testing.assert_array_equal(found[0], expected[0])
            np.testing.assert_array_equal(found[1], expected[1])


def test_few_rows_are_kept_waiting():
    operator = operator_of(clustered(0))
    operator.kernel.memory = 300 * 4 * 4 * 8  # eight rows
    rows, waiting = SpeculativeRows(operator.kernel, n_ahead=5), []

    def watched(i, similarity):
        row = rows(i, similarity)
        waiting.append(len(rows._rows))
        return row

    farthest_point_clustering(operator.diag(), watched, 30)
    assert 0 < max(waiting) <= 8


@given(seed=st.integers(0, 2**16), n=st.integers(2, 120), tile=st.integers(16, 64))
def test_bounded_is_brute_force(seed, n, tile):
    operator = operator_of(clustered(seed, n, d=40), tile)
    K = off_diagonal(operator.toarray(), -np.inf)
    found = row_extremes(operator.kernel, bounds=bounds_of(operator, seed % 12))
    np.testing.assert_array_equal(found.values[:, 0], K.max(axis=1))
    np.testing.assert_array_equal(found.indices[:, 0], K.argmax(axis=1))


@pytest.fixture(scope="module")
def operator():
    return operator_of(clustered(0, n=2000, d=400), tile=64)


class TestCounts:
    """Reductions are cheap where the kernel has structure; entries are counted exactly."""

    def test_what_is_counted_is_what_is_computed(self, operator, monkeypatch):
        bounds = Bounds(operator.kernel)
        sizes, gram = [], Features.gram

        def counted(left, right):
            sizes.append(left.n_samples * right.n_samples)
            return gram(left, right)

        monkeypatch.setattr(Features, "gram", counted)
        for reduce in (
            row_extremes,
            lambda o, bounds: dominated(o, 1e-5, bounds=bounds),
            lambda o, bounds: Found(*count_relations(o, 0.5, 0.1, bounds=bounds)),
        ):
            sizes.clear()
            assert reduce(operator.kernel, bounds=bounds).n_evaluated - bounds.n_evaluated == sum(
                sizes
            )

    def test_shares(self, operator):
        n = 2000
        assert (
            Bounds(operator.kernel).n_evaluated == 12 * n
        )  # 400 numbers a sample pay for 12 landmarks
        assert dominated(operator.kernel, 1e-5).n_evaluated < 0.12 * n * n
        assert row_extremes(operator.kernel).n_evaluated < 0.25 * n * n

    def test_speculation_pays(self, operator):
        rows = SpeculativeRows(operator.kernel)
        farthest_point_clustering(operator.diag(), rows, 200)
        assert 200 * 2000 <= rows.n_evaluated < 2 * 200 * 2000

    def test_a_trained_net(self):
        torch.manual_seed(0)
        net = TRAPS["lenet5"]()[0].float()
        X, y = torch.rand(700, 1, 28, 28), torch.arange(700) % 10
        operator = empirical_ntk(net, X, y)
        K = off_diagonal(operator.toarray(), -np.inf)
        found = row_extremes(operator.kernel)
        np.testing.assert_array_equal(found.values[:, 0], K.max(axis=1))
        assert found.n_evaluated < 700 * 700


class Found:
    def __init__(self, counts, n_evaluated):
        self.n_evaluated = n_evaluated


def test_refined():
    operator = operator_of(clustered(5))
    K = off_diagonal(operator.toarray(), -np.inf)
    candidates = torch.from_numpy(np.argsort(-K, axis=1)[:, 2:6].copy())
    candidates[3] = -1
    candidates[64:80] = -1  # a whole panel without any
    found = refined(operator.kernel, candidates)
    among = np.take_along_axis(K, candidates.numpy(), 1)
    best = among.max(axis=1)
    best[3] = best[64:80] = -np.inf
    np.testing.assert_array_equal(found.values[:, 0], best)
    assert found.indices[3, 0] == -1


def cancelling(size, n=70):
    """Two positions that nearly cancel: entries are rounded in units of what cancels."""
    a, g = torch.randn(1, n, 12), torch.randn(1, n, 8)
    a = torch.cat([a, a + size * torch.randn(1, n, 12)])
    g = torch.cat([g, -g + size * torch.randn(1, n, 8)])
    operator = KernelOperator(Features({"a": Outer(a, g, 1)}, spec(n)))
    operator.kernel.panel = operator.kernel.tile = 16
    return operator


@pytest.mark.parametrize("n_landmarks", [0, 5, 30])
@pytest.mark.parametrize("size", [1e-1, 1e-2, 1e-3])
def test_positions_that_cancel(size, n_landmarks):
    torch.manual_seed(0)
    operator = cancelling(size)
    bounds = bounds_of(operator, n_landmarks)
    everything = torch.arange(70)
    K = operator.toarray()
    low, high = bounds.between(everything, everything)
    assert (low.numpy() <= K / bounds.scale).all()
    assert (high.numpy() >= K / bounds.scale).all()
    found = row_extremes(operator.kernel, bounds=bounds)
    np.testing.assert_array_equal(found.indices[:, 0], off_diagonal(K, -np.inf).argmax(axis=1))
    counts, _ = count_relations(operator.kernel, 0.5, 0.1, bounds=bounds)
    np.testing.assert_array_equal(counts.numpy(), relations_by_definition(K, 0.5, 0.1))


def test_many_groups(monkeypatch):
    """Samples are grouped by direction: fewer entries, the same result."""
    operator = operator_of(clustered(7, n=600))
    K = off_diagonal(operator.toarray(), -np.inf)
    counts = []
    for size in (10_000, 50):
        monkeypatch.setattr(bounds_module, "GROUP_SIZE", size)
        found = row_extremes(operator.kernel, bounds=bounds_of(operator, 20))
        np.testing.assert_array_equal(found.indices[:, 0], K.argmax(axis=1))
        counts.append(found.n_evaluated)
    assert counts[1] < counts[0]


def test_a_norm_that_vanishes_beside_the_largest():
    """Squared norms 1e-300 and 1e300: not zero, though their quotient is."""
    phi = clustered(0, 70, 20, dtype=np.float64)
    phi *= 10 ** np.random.default_rng(0).uniform(-150, 145, size=(70, 1))
    operator = operator_of(phi, tile=48)
    counts, _ = count_relations(operator.kernel, 0.5, 0.1)
    np.testing.assert_array_equal(
        counts.numpy(), relations_by_definition(operator.toarray(), 0.5, 0.1)
    )


def test_wide_features_take_no_more_than_the_memory():
    features = operator_of(clustered(0, n=200, d=40_000)).kernel.left
    taken, take = [], Features.take

    def counted(self, rows):
        found = take(self, rows)
        taken.append(found.n_samples)
        return found

    operator = KernelOperator(features, working_memory=32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Features, "take", counted)
        row_extremes(operator.kernel)
    assert max(taken) * features.sample_bytes <= 32 * 2**20 / 4


class TestErrors:
    def test_an_underflow_is_named(self):
        with pytest.raises(ValueError, match=r"underflows torch.float32.*use float64"):
            Bounds(operator_of(np.full((4, 3), 1e-18, dtype=np.float32)).kernel)

    def test_an_overflow_is_named(self):
        with pytest.raises(ValueError, match=r"overflows torch.float32.*use float64"):
            Bounds(operator_of(np.full((4, 3), 1e30, dtype=np.float32)).kernel)

    def test_several_cotangents_are_refused(self):
        net, X, _ = TRAPS["lenet5"]()
        with pytest.raises(ValueError, match="10 cotangents a sample"):
            sample_relations(
                empirical_ntk(net, X, kernel="entk"), threshold=0.5, threshold_unrelated=0.1
            )

    @pytest.mark.parametrize(
        "thresholds", [(0, 0), (1.5, 0.1), (0.5, 0.6), (0.5, -0.1), ("a", 0.1), (0.5, None)]
    )
    def test_thresholds(self, thresholds):
        with pytest.raises(ValueError, match="0 <= threshold_unrelated <= threshold <= 1"):
            sample_relations(
                operator_of(tied(0)), threshold=thresholds[0], threshold_unrelated=thresholds[1]
            )

    def test_relations_are_among_one_set(self):
        net, X, _ = TRAPS["lenet5"]()
        y = torch.arange(len(X))
        with pytest.raises(ValueError, match="compares two"):
            sample_relations(empirical_ntk(net, X, y, X, y), threshold=0.5, threshold_unrelated=0.1)
        with pytest.raises(TypeError, match="KernelOperator"):
            sample_relations(np.eye(3), threshold=0.5, threshold_unrelated=0.1)


def test_public_relations_add_up():
    operator = operator_of(clustered(6))
    found = sample_relations(operator, threshold=0.6, threshold_unrelated=0.2)
    expected = relations_by_definition(operator.toarray(), 0.6, 0.2)
    np.testing.assert_array_equal(found.interchangeable, expected[:, 0])
    np.testing.assert_array_equal(found["unrelated"], expected[:, 1])
    np.testing.assert_array_equal(found.contradictory, expected[:, 2])
    total = found.interchangeable + found.unrelated + found.contradictory + found.between
    assert (total == 299).all()


class Slow(Source):
    """A source that is not in memory and counts what is taken of it."""

    def __init__(self, features):
        super().__init__(features, features.n_samples)
        self._features, self.n_taken = features, 0

    def take(self, rows):
        found = self._features.take(rows)
        self.n_taken += found.n_samples
        return found


class TestSchedule:
    """Sources that are not in memory: as few samples are taken as the memory allows."""

    @pytest.mark.parametrize("memory", [0.05, 0.2, 0.6, 100])
    def test_samples_taken_for_a_symmetric_kernel(self, memory):
        features = operator_of(clustered(0, n=500, d=256)).kernel.left
        source = Slow(features)
        operator = KernelOperator(source, working_memory=memory)
        panel, tile = operator.kernel.panel, operator.kernel.tile
        fits = memory * 2**20 / 2
        assert (panel + tile) * source.sample_bytes <= fits
        np.testing.assert_array_equal(operator.toarray(), KernelOperator(features).toarray())
        # a panel once, and for each all that comes after it
        assert source.n_taken == sum(range(500, 0, -panel))
        assert panel >= min(500, 0.85 * (fits / source.sample_bytes) - 2)

    def test_everything_else_agrees_too(self):
        features = operator_of(clustered(0, n=200)).kernel.left
        source = Slow(features)
        lazy, plain = KernelOperator(source, working_memory=0.05), KernelOperator(features)
        lazy_columns = KernelOperator(features, source)
        V = np.random.default_rng(0).normal(size=(200, 2))
        np.testing.assert_array_equal(lazy.diag(), plain.diag())
        np.testing.assert_allclose(lazy.matmul(V), plain.matmul(V), rtol=1e-4, atol=0.1)
        np.testing.assert_array_equal(lazy.block([5, 3], slice(9)), plain.block([5, 3], slice(9)))
        np.testing.assert_array_equal(lazy_columns.toarray(), plain.toarray())
        found, expected = row_extremes(lazy.kernel), row_extremes(plain.kernel)
        np.testing.assert_array_equal(found.indices, expected.indices)

    def test_a_part_of_a_source_is_no_copy(self):
        features = operator_of(clustered(0)).kernel.left
        assert subset(features, torch.arange(300)) is features
        piece = subset(features, torch.arange(5, 20)).factors["all"].phi
        assert piece.data_ptr() == features.factors["all"].phi[5:].data_ptr()
        scattered = subset(features, torch.tensor([7, 3, 7]))
        torch.testing.assert_close(
            scattered.take(slice(1, 3)).factors["all"].phi, features.factors["all"].phi[[3, 7]]
        )
