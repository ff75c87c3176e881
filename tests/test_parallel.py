"""Tiles and shards on other workers: the same results, and no run lost with a worker."""

import os
import signal
import threading
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
import sklearn
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier

from sklearn_lpntk import RedundancyPruner
from sklearn_lpntk._runtime.parallel import parallel_map
from sklearn_lpntk.kernels import empirical_ntk, sample_relations

from .nets import TRAPS

N = 150


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = np.arange(N) % 3
    X = rng.normal(size=(N, 8)) + 2 * np.eye(8)[y]
    return X.astype(np.float32), y


@pytest.fixture(scope="module")
def net(data):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    fitted = NeuralNetClassifier(
        module, criterion=torch.nn.CrossEntropyLoss, max_epochs=3, lr=0.1, verbose=0
    ).fit(*data)
    return FrozenEstimator(fitted)


@pytest.fixture(scope="module")
def dask_cluster():
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True}
    with (
        distributed.LocalCluster(**options, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        # a test module of ours is no package that a worker could import
        client.run(_set_one_thread)
        yield client


def _set_one_thread():
    import torch

    torch.set_num_threads(1)


BACKENDS = ["threading", "loky", "dask"]
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:distributed"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


@pytest.fixture(params=BACKENDS)
def backend(request):
    if request.param == "dask":
        request.getfixturevalue("dask_cluster")
    with joblib.parallel_config(backend=request.param, n_jobs=2):
        yield request.param


class TestMap:
    def test_in_order_with_any_backend(self, backend):
        assert list(parallel_map()(_square, range(20))) == [i * i for i in range(20)]

    def test_one_worker_needs_none(self):
        assert parallel_map() is None
        assert parallel_map(1) is None
        assert parallel_map(2).in_threads

    def test_errors_come_through(self, backend):
        with pytest.raises(ZeroDivisionError):
            list(parallel_map()(_inverse, [1, 2, 0, 3]))

    @pytest.mark.parametrize("name", ["loky", "dask"])
    def test_a_killed_worker_costs_its_call(self, name, request, tmp_path):
        if name == "dask":
            request.getfixturevalue("dask_cluster")
        job = _DiesOnce(str(tmp_path / "died"))
        with joblib.parallel_config(backend=name, n_jobs=2):
            if name == "loky":
                with pytest.warns(RuntimeWarning, match="its results were lost"):
                    results = list(parallel_map()(job, range(12)))
            else:
                results = list(parallel_map()(job, range(12)))
        assert results == [i * i for i in range(12)]
        assert (tmp_path / "died").exists()

    def test_results_that_dask_lost_are_computed_again(self, dask_cluster, tmp_path):
        """As where the dead worker alone held what the calls need."""
        from distributed import Future

        dask_cluster.wait_for_workers(2)  # a test before this one may have killed some
        with joblib.parallel_config(backend="dask"):
            results = parallel_map()(_Waits(tmp_path / "gate", np.ones(1000)), range(12))
            found = [next(results)]
            dask_cluster.cancel([Future(key, dask_cluster) for key in dask_cluster.futures])
            (tmp_path / "gate").touch()
            with pytest.warns(RuntimeWarning, match="its results were lost"):
                found += results
        assert found == [i * 1000 for i in range(12)]

    def test_workers_that_always_die_are_given_up(self):
        with (
            joblib.parallel_config(backend="loky", n_jobs=2),
            pytest.warns(RuntimeWarning, match="lost"),
            pytest.raises(joblib.externals.loky.process_executor.TerminatedWorkerError),
        ):
            list(parallel_map()(_die, range(3)))


def _square(i):
    return i * i


def _inverse(i):
    return 1 / i


def _die(i):
    os.kill(os.getpid(), signal.SIGKILL)


class _Waits:
    """All jobs but the first wait for a file; the array is one that Dask sends to a worker once."""

    def __init__(self, gate, array):
        self.gate = gate
        self.array = array

    def __call__(self, i):
        while i and not self.gate.exists():
            time.sleep(0.01)
        return int(i * self.array.sum())


class _DiesOnce:
    """Kills its process at the sixth job, the first time it comes to it."""

    def __init__(self, file):
        self.file = file

    def __call__(self, i):
        if i == 5 and not Path(self.file).exists():
            Path(self.file).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return i * i


def fitted(data, net, **options):
    options = {"strategy": "redundant", "random_state": 0, "net": net} | options
    pruner = RedundancyPruner(**options)
    pruner.fit_resample(*data)
    return pruner


@pytest.mark.parametrize(
    "strategy", ["herding", "coverage", "redundant", "redundant+head", "grand", "k_center"]
)
def test_the_pruner_finds_the_same(strategy, backend, data, net):
    with joblib.parallel_config(backend="sequential"):
        serial = fitted(data, net, strategy=strategy)
    parallel = fitted(data, net, strategy=strategy)
    np.testing.assert_array_equal(parallel.prune_order_, serial.prune_order_)
    if hasattr(serial, "redundancy_"):
        np.testing.assert_array_equal(parallel.redundancy_, serial.redundancy_)
        np.testing.assert_array_equal(parallel.dominators_, serial.dominators_)


@pytest.mark.parametrize("n_jobs", [2, -1])
def test_n_jobs_of_the_pruner(n_jobs, data, net):
    serial, parallel = fitted(data, net), fitted(data, net, n_jobs=n_jobs)
    np.testing.assert_array_equal(parallel.redundancy_, serial.redundancy_)


def test_stores_and_sketches_on_workers(backend, data, net, tmp_path):
    options = {"n_components": 64, "store": tmp_path}
    parallel = fitted(data, net, **options)
    with joblib.parallel_config(backend="sequential"):
        serial = fitted(data, net, n_components=64)
        stored = fitted(data, net, **options)
    np.testing.assert_array_equal(parallel.prune_order_, serial.prune_order_)
    np.testing.assert_array_equal(stored.prune_order_, serial.prune_order_)


def test_features_and_relations(backend):
    torch.manual_seed(0)
    net = TRAPS["lenet5"]()[0].float()
    X, y = torch.rand(60, 1, 28, 28), torch.arange(60) % 10
    operator = empirical_ntk(net, X, y, batch_size=4)
    relations = sample_relations(operator, threshold=0.5, threshold_unrelated=0.1)
    with joblib.parallel_config(backend="sequential"):
        serial = empirical_ntk(net, X, y, batch_size=4)
        expected = sample_relations(serial, threshold=0.5, threshold_unrelated=0.1)
    np.testing.assert_array_equal(operator.toarray(), serial.toarray())
    for name in ("interchangeable", "unrelated", "contradictory", "between"):
        np.testing.assert_array_equal(relations[name], expected[name])


def test_a_net_that_cannot_be_pickled_stays_here():
    net, X, _ = TRAPS["weight_norm_and_spectral_norm"]()
    y = torch.arange(len(X)) % 3
    options = {"batch_size": 1}
    expected = empirical_ntk(net, X, y, **options).toarray()
    with (
        joblib.parallel_config(backend="loky", n_jobs=2),
        pytest.warns(RuntimeWarning, match=r"can't be sent to other processes"),
    ):
        found = empirical_ntk(net, X, y, **options).toarray()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.filterwarnings("ignore:A worker process or its results were lost")
def test_a_worker_killed_in_the_middle_of_a_fit(dask_cluster, net):
    """Its tiles are computed by the other, and the result is that of one process."""
    rng = np.random.default_rng(1)
    y = np.arange(3000) % 3
    X = (rng.normal(size=(3000, 8)) + 2 * np.eye(8)[y]).astype(np.float32)
    serial = fitted((X, y), net)
    pids = dask_cluster.run(os.getpid)
    victim = threading.Timer(0.7, os.kill, (next(iter(pids.values())), signal.SIGKILL))
    with joblib.parallel_config(backend="dask"), sklearn.config_context(working_memory=0.2):
        victim.start()
        parallel = fitted((X, y), net)
    victim.join()
    np.testing.assert_array_equal(parallel.redundancy_, serial.redundancy_)
    np.testing.assert_array_equal(parallel.dominators_, serial.dominators_)
    assert set(dask_cluster.run(os.getpid).values()) != set(pids.values())
