"""On a GPU, where there is one: the kernels, the reductions and the store."""

import numpy as np
import pytest
import torch

from sklearn_lpntk._engine.bounds import Bounds
from sklearn_lpntk._engine.cotangents import COTANGENTS
from sklearn_lpntk._engine.factors import Dense
from sklearn_lpntk._engine.features import Features, Spec
from sklearn_lpntk._engine.reductions import dominated, row_extremes
from sklearn_lpntk._engine.relations import count_relations
from sklearn_lpntk._engine.rows import SpeculativeRows
from sklearn_lpntk.cluster._traversal import farthest_point_clustering
from sklearn_lpntk.kernels import KernelOperator, empirical_ntk

from ..nets import TRAPS

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.filterwarnings("ignore::sklearn_lpntk.exceptions.AutogradRuleWarning"),
]


def on_gpu(net, X):
    if isinstance(X, dict):
        return net.to("cuda"), {key: value.to("cuda") for key, value in X.items()}
    return net.to("cuda"), X.to("cuda")


def n_rows(X):
    return len(next(iter(X.values()))) if isinstance(X, dict) else len(X)


@pytest.mark.parametrize("kernel", sorted(COTANGENTS))
@pytest.mark.parametrize("name", sorted(TRAPS))
def test_the_kernel_is_that_of_the_cpu(name, kernel):
    torch.manual_seed(0)
    net, X, n_logits = TRAPS[name]()
    y = torch.arange(n_rows(X)) % max(n_logits, 2)
    expected = empirical_ntk(net, X, y, kernel=kernel, batch_size=4).toarray()
    found = empirical_ntk(*on_gpu(net, X), y, kernel=kernel, batch_size=4).toarray()
    # torch's own weight_norm agrees to single precision only
    tolerance = 1e-5 if "weight_norm" in name else 1e-10
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=100 * tolerance, atol=tolerance * scale)


@pytest.fixture(scope="module")
def operators():
    """LeNet-5 in single precision, and the same kernel as an array."""
    torch.manual_seed(0)
    net = TRAPS["lenet5"]()[0].float().to("cuda")
    X, y = torch.rand(3000, 1, 28, 28), torch.arange(3000) % 10
    operator = empirical_ntk(net, X, y)
    return operator, operator.toarray()


def test_reductions(operators):
    operator, K = operators
    off = K + np.diag(np.full(len(K), -np.inf, dtype=np.float32))
    found = row_extremes(operator.kernel)
    np.testing.assert_allclose(found.values[:, 0].cpu(), off.max(axis=1), rtol=1e-5)
    assert found.n_evaluated < K.size
    mask = dominated(operator.kernel, 1e-3).mask.cpu().numpy()
    ratio = off.max(axis=1) / K.diagonal()
    clear = np.abs(ratio - (1 + 1e-3)) > 1e-4
    np.testing.assert_array_equal(mask[clear], (ratio > 1 + 1e-3)[clear])
    counts, _ = count_relations(operator.kernel, 0.5, 0.1)
    assert counts.sum(1).max() <= len(K) - 1


def test_ties_go_to_the_lowest_index():
    rng = np.random.default_rng(0)
    phi = torch.from_numpy(rng.integers(-1, 2, size=(600, 3)).astype(np.float32)).to("cuda")
    spec = Spec(600, 1, 1, torch.float32, torch.device("cuda"))
    operator = KernelOperator(Features({"a": Dense(phi, 1)}, spec))
    K = operator.toarray()
    np.fill_diagonal(K, -np.inf)
    for k in (1, 4):
        found = row_extremes(operator.kernel, k).indices.cpu().numpy()
        np.testing.assert_array_equal(found, np.argsort(-K, axis=1, kind="stable")[:, :k])


def test_clustering(operators):
    operator, _ = operators
    bounds = Bounds(operator.kernel)
    rows = SpeculativeRows(operator.kernel, bounds=bounds)
    centers, labels = farthest_point_clustering(bounds.diagonal.cpu().numpy(), rows, 50)
    assert len(set(centers)) == 50
    assert labels.max() == 49


def test_store_and_sketch(tmp_path):
    torch.manual_seed(0)
    net, X, _ = TRAPS["lenet5"]()
    net, X = on_gpu(net, X)
    y = torch.arange(len(X)) % 10
    stored = empirical_ntk(net, X, y, store=tmp_path)
    assert stored.kernel.left.take(slice(0, 2)).device.type == "cuda"
    expected = empirical_ntk(net, X, y).toarray()
    np.testing.assert_allclose(stored.toarray(), expected, rtol=1e-10)
    np.testing.assert_allclose(stored.matmul(np.eye(len(X))), expected, rtol=1e-8)
    sketches = [empirical_ntk(n, x, y, n_components=512, random_state=0) for n, x in ((net, X),)]
    on_cpu = empirical_ntk(net.cpu(), X.cpu(), y, n_components=512, random_state=0).toarray()
    np.testing.assert_allclose(sketches[0].toarray(), on_cpu, rtol=1e-6, atol=1e-9)
