"""The lazy kernel matrix: indexing, precision, bit-stability."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn

from sklearn_lpntk._engine.factors import Dense, Outer
from sklearn_lpntk._engine.features import Features, Spec
from sklearn_lpntk._engine.reductions import row_extremes
from sklearn_lpntk.kernels import KernelOperator, empirical_ntk

from ..nets import TRAPS, resnet18

N = 70


def spec(n):
    return Spec(n, 1, 1, torch.float32, torch.device("cpu"))


@pytest.fixture(scope="module", params=["lenet5", "language_model"])
def operator(request):
    torch.manual_seed(0)
    net, _, _ = TRAPS[request.param]()
    images, texts = torch.rand(N, 1, 28, 28), torch.randint(100, (N, 8))
    X, K = (images, 10) if request.param == "lenet5" else (texts, 3)
    return empirical_ntk(net.float(), X, torch.arange(N) % K)


@pytest.fixture(scope="module")
def sequences():
    """Factors with several positions, R = 4 cotangents."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(30, 40), nn.Tanh(), nn.Flatten(), nn.Linear(120, 4))
    return empirical_ntk(net, torch.randn(21, 3, 30), kernel="entk")


INDICES = [
    slice(None),
    slice(3, 9),
    slice(60, 2, -7),
    [5],
    [7, 7, 0],
    np.arange(N) % 3 == 0,
    np.array([], dtype=int),
]


@pytest.mark.parametrize("rows", INDICES)
@pytest.mark.parametrize("cols", INDICES)
def test_block_is_the_array_bit_for_bit(operator, rows, cols):
    np.testing.assert_array_equal(operator.block(rows, cols), operator.toarray()[rows][:, cols])


def test_block_of_several_cotangents(sequences):
    K = sequences.toarray()
    assert K.shape == (84, 84)
    rows, cols = np.array([3, 80, 3, 17]), slice(1, 84, 5)
    np.testing.assert_allclose(sequences.block(rows, cols), K[rows][:, cols], rtol=1e-5)
    np.testing.assert_array_equal(sequences.diag(), K.diagonal())


def test_diag_is_the_diagonal_of_block(operator, sequences):
    for op in (operator, sequences):
        np.testing.assert_array_equal(op.diag(), op.block(slice(None), slice(None)).diagonal())
        for i in (0, 5, 20):
            assert op.block([i], [i])[0, 0] == op.diag()[i]


def test_symmetric_psd(operator):
    K = operator.toarray()
    np.testing.assert_array_equal(K, K.T)
    assert np.linalg.eigvalsh(K.astype(np.float64)).min() > -1e-5 * np.trace(K)


@given(tile=st.integers(16, 80))
def test_tile_size_does_not_matter(operator, tile):
    tiled = KernelOperator(operator.kernel.left)
    tiled.kernel.panel = tiled.kernel.tile = tile
    np.testing.assert_array_equal(tiled.toarray(), operator.toarray())


@given(seed=st.integers(0, 2**16))
def test_permuting_samples_permutes_the_kernel(operator, seed):
    order = np.random.default_rng(seed).permutation(N)
    np.testing.assert_array_equal(operator.block(order, order), operator.toarray()[order][:, order])


@pytest.mark.parametrize("shape", [(N,), (N, 3)])
def test_matmul(operator, shape):
    V = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_allclose(operator.matmul(V), operator.toarray() @ V, rtol=1e-4, atol=1e-3)
    with pytest.raises(ValueError, match=r"V must have shape \(70,\)"):
        operator.matmul(V[1:])


def test_matmul_of_factored_embeddings_and_several_cotangents(sequences):
    V = np.random.default_rng(0).normal(size=(84, 2))
    expected = sequences.toarray() @ V
    np.testing.assert_allclose(sequences.matmul(V), expected, rtol=1e-4, atol=1e-4)
    net, X, _ = TRAPS["large_vocabulary"]()
    lookup = empirical_ntk(net, X, torch.arange(len(X)) % 3)
    np.testing.assert_allclose(lookup.matmul(np.eye(len(X))), lookup.toarray(), rtol=1e-10)


def test_working_memory_bounds_the_tiles(operator):
    assert (
        KernelOperator(operator.kernel.left, working_memory=1).kernel.tile == 16
    )  # 14 kB a sample
    thin = Features({"a": Dense(torch.zeros(9, 3), 1)}, spec(9))
    assert KernelOperator(thin, working_memory=1).kernel.tile == 256
    assert KernelOperator(operator.kernel.left, working_memory=1024).kernel.tile == 528


@pytest.mark.parametrize("n_rows", [1, 2, 4, 10])
def test_single_precision_on_eleven_million_columns(n_rows):
    """A plain sgemm of few rows loses three digits here on some processors."""
    torch.manual_seed(1)
    phi = torch.randn(n_rows, 11_000_000) + 0.5
    features = Features({"all": Dense(phi, 1)}, spec(n_rows))
    found = features.gram(features).double()
    expected = torch.zeros(n_rows, n_rows, dtype=torch.float64)
    for block in phi.split(2**20, 1):
        expected += block.double() @ block.double().T
    assert (found - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("n", [1, 3, 10, 40])
def test_single_precision_agrees_with_double(n):
    """Smooth activations: at a kink the two precisions may see different gradients."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(8, 16, 3), nn.GELU(),
        nn.Flatten(), nn.Linear(16 * 121, 64), nn.Tanh(), nn.Linear(64, 10),
    )  # fmt: skip
    X, y = torch.rand(n, 1, 28, 28), torch.arange(n) % 10
    single = empirical_ntk(net, X, y).toarray()
    double = empirical_ntk(net.double(), X.double(), y).toarray()
    assert np.linalg.norm(single - double) <= 1e-5 * np.linalg.norm(double)


def test_single_precision_resnet18_of_full_width():
    torch.manual_seed(0)
    net = resnet18().eval()
    X, y = torch.rand(4, 3, 16, 16), torch.arange(4)
    single = empirical_ntk(net, X, y).toarray()
    double = empirical_ntk(net.double(), X.double(), y).toarray()
    assert np.linalg.norm(single - double) <= 1e-5 * np.linalg.norm(double)


@given(seed=st.integers(0, 2**16), n=st.integers(2, 60), tile=st.integers(16, 40))
def test_row_maxima_with_ties(seed, n, tile):
    rng = np.random.default_rng(seed)
    phi = torch.tensor(rng.integers(-2, 3, size=(n, 4)), dtype=torch.float32)
    operator = KernelOperator(Features({"all": Dense(phi, 1)}, spec(n)))
    operator.kernel.panel = operator.kernel.tile = tile
    K = operator.toarray()
    np.fill_diagonal(K, -np.inf)
    found = row_extremes(operator.kernel)
    np.testing.assert_array_equal(found.values[:, 0], K.max(axis=1))
    np.testing.assert_array_equal(found.indices[:, 0], K.argmax(axis=1))


def test_a_symmetric_kernel_costs_half(operator, monkeypatch):
    tiles = []
    gram = Features.gram
    monkeypatch.setattr(Features, "gram", lambda *a: tiles.append(1) or gram(*a))
    tiled = KernelOperator(operator.kernel.left)
    tiled.kernel.panel = tiled.kernel.tile = 16
    tiled.toarray()
    assert len(tiles) == 5 * 6 // 2
    crossed = KernelOperator(operator.kernel.left, operator.kernel.left.take(slice(0, N)))
    crossed.kernel.panel = crossed.kernel.tile = 16
    crossed.toarray()
    assert len(tiles) == 15 + 25


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_that_are_written_out_are_so_once(dtype, monkeypatch):
    torch.manual_seed(0)
    n, written = 130, []
    outer = Outer(torch.randn(8, n, 6, dtype=dtype), torch.randn(8, n, 5, dtype=dtype), 1)
    features = Features({"all": outer}, replace(spec(n), dtype=dtype))
    real = Outer._written
    monkeypatch.setattr(Outer, "_written", lambda f, p: written.append(f.n_samples) or real(f, p))
    K = KernelOperator(features).toarray()
    assert sum(written) == n
    tiled = KernelOperator(features)
    tiled.kernel.panel = tiled.kernel.tile = 48
    np.testing.assert_array_equal(tiled.toarray(), K)
    assert sum(written) > 2 * n
    phi = outer.materialise().phi.double()
    np.testing.assert_allclose(
        K, phi @ phi.T, rtol=1e-4 if dtype == torch.float32 else 1e-11, atol=1e-4
    )
    half = features.take(slice(0, 60))
    np.testing.assert_array_equal(KernelOperator(half, features).toarray(), K[:60])


@pytest.mark.parametrize("depth", [64, 113])
def test_rows_of_an_odd_width_have_the_same_bits(depth):
    torch.manual_seed(0)
    n = 70
    a, g = (torch.randn(15, n, k, dtype=torch.float64) for k in (depth, 73))
    features = Features({"a": Outer(a, g, 1)}, replace(spec(n), dtype=torch.float64))
    operator = KernelOperator(features)
    K = operator.toarray()
    for i in range(n):
        np.testing.assert_array_equal(operator.block(slice(i, i + 1), slice(None))[0], K[i])
    np.testing.assert_array_equal(operator.diag(), K.diagonal())


def test_repr(operator):
    assert repr(operator) == "KernelOperator(shape=(70, 70), dtype=float32)"


def test_the_diagonal_of_a_rectangle_is_refused(operator):
    rectangle = KernelOperator(operator.kernel.left, operator.kernel.left.take(slice(0, 3)))
    with pytest.raises(ValueError, match=r"shape \(70, 3\) has no diagonal"):
        rectangle.diag()
    with pytest.raises(ValueError, match="one-dimensional"):
        operator.block(3, slice(None))


@pytest.fixture(scope="module")
def kernels():
    """A square one and a wide one."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    X, y = torch.randn(30, 4), torch.arange(30) % 3
    return empirical_ntk(net, X, y), empirical_ntk(net, X[:10], y[:10], X, y)


class TestLinearOperator:
    """What scipy and numpy expect of a lazy matrix."""

    def test_products(self, kernels):
        square, wide = kernels
        A, B = square.toarray(), wide.toarray()
        V = np.random.default_rng(0).normal(size=(30, 3))
        assert isinstance(square, LinearOperator)
        np.testing.assert_allclose(square @ V, A @ V)
        np.testing.assert_allclose(square @ V[:, 0], A @ V[:, 0])
        np.testing.assert_allclose(square.matvec(V[:, :1]), A @ V[:, :1])
        np.testing.assert_allclose(V.T @ square, V.T @ A)
        np.testing.assert_allclose(wide @ V, B @ V)
        np.testing.assert_allclose(wide.T @ V[:10], B.T @ V[:10])
        np.testing.assert_allclose((2 * wide).T @ V[:10], 2 * B.T @ V[:10])
        assert (len(wide), wide.T.shape, wide.dtype) == (10, (30, 10), np.float64)

    def test_entries(self, kernels):
        square, wide = kernels
        A, B = square.toarray(), wide.toarray()
        np.testing.assert_array_equal(np.asarray(wide), B)
        assert np.asarray(wide, dtype=np.float32).dtype == np.float32
        assert square[3, 4] == A[3, 4]
        assert square[-1, np.int64(2)] == A[-1, 2]
        np.testing.assert_array_equal(square[3], A[3])
        np.testing.assert_array_equal(wide[:, 5], B[:, 5])
        np.testing.assert_array_equal(wide[2:9:3, [1, 2]], B[2:9:3][:, [1, 2]])
        with pytest.raises(IndexError, match=r"K.block\(rows, cols\)"):
            square[[1, 2], [3, 4]]
        with pytest.raises(IndexError):
            square[30, 0]

    def test_solvers(self, kernels):
        A = kernels[0].toarray()
        values = eigsh(kernels[0], k=3, return_eigenvectors=False)
        np.testing.assert_allclose(np.sort(values), np.linalg.eigvalsh(A)[-3:])

    def test_a_pickle(self, kernels):
        again = pickle.loads(pickle.dumps(kernels[1]))
        np.testing.assert_array_equal(again.toarray(), kernels[1].toarray())
