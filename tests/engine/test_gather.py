"""Features that do not fit are computed anew; shards may be computed anywhere."""

import logging

import numpy as np
import pytest
import sklearn
import torch
from torch import nn

from sklearn_lpntk import _features
from sklearn_lpntk._engine.cotangents import find_cotangent
from sklearn_lpntk._engine.extract import Extractor
from sklearn_lpntk._engine.gather import gather
from sklearn_lpntk._engine.reductions import row_extremes
from sklearn_lpntk._engine.sources import Recomputed
from sklearn_lpntk._runtime import memory
from sklearn_lpntk.exceptions import AutogradRuleWarning
from sklearn_lpntk.kernels import empirical_ntk

from ..nets import TRAPS, branching

N = 200


def make_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 30), nn.Tanh(), nn.Linear(30, 3)).double()


X, y = np.random.default_rng(0).normal(size=(N, 6)), np.arange(N) % 3


def make_extractor(net=None, **options):
    return Extractor(net or make_net(), find_cotangent("lpntk"), batch_size=16, **options)


@pytest.fixture
def no_memory(monkeypatch):
    monkeypatch.setattr(_features, "limit_of", lambda device: 1000)


class TestRecomputed:
    def test_the_same_kernel(self, no_memory):
        operator = empirical_ntk(make_net(), X, y, batch_size=16)
        assert isinstance(operator.kernel.left, Recomputed)
        expected = _features.operator_of(make_extractor()(X, y)).toarray()
        np.testing.assert_allclose(operator.toarray(), expected, rtol=1e-10)
        np.testing.assert_allclose(operator.diag(), expected.diagonal(), rtol=1e-10)
        np.testing.assert_allclose(operator.matmul(np.ones(N)), expected.sum(axis=1), rtol=1e-9)
        rows = np.array([150, 3, 3])
        np.testing.assert_allclose(operator.block(rows, [7]), expected[rows][:, [7]], rtol=1e-10)
        found = row_extremes(operator.restricted(np.arange(0, N, 2)).kernel)
        part = expected[::2, ::2].copy()
        np.fill_diagonal(part, -np.inf)
        np.testing.assert_array_equal(found.indices[:, 0], part.argmax(axis=1))

    @pytest.mark.parametrize("kind", ["memory map", "slices only", "tensor", "list", "dict"])
    def test_kinds_of_data(self, kind, no_memory, tmp_path):
        class SlicesOnly:
            shape, dtype = X.shape, X.dtype

            def __len__(self):
                return len(X)

            def __getitem__(self, rows):
                assert isinstance(rows, slice)
                return X[rows]

        np.save(tmp_path / "X.npy", X)
        net = make_net()
        given = {
            "memory map": lambda: np.load(tmp_path / "X.npy", mmap_mode="r"),
            "slices only": SlicesOnly,
            "tensor": lambda: torch.from_numpy(X),
            "list": X.tolist,
            "dict": lambda: {"input": X.tolist()},
        }[kind]()
        operator = empirical_ntk(net, given, y, batch_size=16)
        expected = _features.operator_of(make_extractor()(X, y)).toarray()
        rows = [150, 3, 4, 5, 3]
        np.testing.assert_allclose(operator.block(rows, [9, 2]), expected[rows][:, [9, 2]])
        np.testing.assert_allclose(operator.toarray(), expected, rtol=1e-10)
        stored = empirical_ntk(net, given, y, batch_size=16, store=tmp_path / kind)
        np.testing.assert_allclose(stored.toarray(), expected, rtol=1e-10)

    def test_a_sketch_that_does_not_fit_either(self, no_memory):
        operator = empirical_ntk(make_net(), X, y, n_components=64, random_state=0)
        assert isinstance(operator.kernel.left, Recomputed)
        extractor = make_extractor()
        sketch = _features.Sketch(64, _features.sketch_seed(64, 0))
        expected = _features.operator_of(extractor(X, y, sketch=sketch)).toarray()
        np.testing.assert_allclose(operator.toarray(), expected, rtol=1e-8, atol=1e-10)

    @pytest.mark.filterwarnings("ignore::sklearn_lpntk.exceptions.AutogradRuleWarning")
    @pytest.mark.parametrize("kernel", ["lpntk", "entk"])
    @pytest.mark.parametrize("name", sorted(TRAPS))
    def test_every_net(self, name, kernel, monkeypatch):
        net, data, n_logits = TRAPS[name]()
        n = len(next(iter(data.values()))) if isinstance(data, dict) else len(data)
        labels = torch.arange(n) % max(n_logits, 2)
        expected = empirical_ntk(net, data, labels, kernel=kernel).toarray()
        monkeypatch.setattr(_features, "limit_of", lambda device: 10)
        operator = empirical_ntk(net, data, labels, kernel=kernel)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(operator.toarray(), expected, rtol=1e-8, atol=1e-10 * scale)

    def test_passes_for_a_given_working_memory(self, no_memory):
        """Each panel once, and for each all that comes after it; a first pass checks all."""
        counts = []
        net = make_net()
        net.register_forward_pre_hook(lambda module, args: counts.append(len(args[0])))
        with sklearn.config_context(working_memory=0.2):
            operator = empirical_ntk(net, X, y, batch_size=16)
        assert sum(counts) < 2 * N  # the self-check runs some rows again
        counts.clear()
        panel, source = operator.kernel.panel, operator.kernel.left
        operator.toarray()
        expected = sum(range(N, 0, -panel))
        assert sum(counts) == source.n_samples_passed == expected
        assert 48 <= panel < N
        assert (panel + operator.kernel.tile) * source.sample_bytes <= 0.2 * 2**20 / 2

    def test_more_memory_means_fewer_passes(self, no_memory):
        passes = []
        for working_memory in (0.02, 0.1, 0.4, 10):
            with sklearn.config_context(working_memory=working_memory):
                operator = empirical_ntk(make_net(), X, y)
            operator.toarray()
            passes.append(operator.kernel.left.n_samples_passed)
        assert passes == sorted(passes, reverse=True)
        assert passes[0] > 2 * passes[-1]
        assert passes[-1] == N

    def test_a_rule_refuted_late(self):
        """The first pass sees every sample, so that all are computed under one plan."""
        net, data = branching()
        extractor = Extractor(net, "pntk", batch_size=5)
        with pytest.warns(AutogradRuleWarning):
            source = extractor(data, limit=10)
        first, last = source.take(slice(0, 3)), source.take(slice(37, 40))
        assert first.factors.keys() & last.factors.keys()
        expected = Extractor(net, find_cotangent("pntk"), batch_size=5, plan=extractor.plan)(data)
        torch.testing.assert_close(
            first.gram(last), expected.take(slice(0, 3)).gram(expected.take(slice(37, 40)))
        )


def in_process(function, jobs):
    """A ``map`` that pickles what it would send to another process."""
    import cloudpickle

    function = cloudpickle.dumps(function)
    for job in jobs:
        call, job = cloudpickle.loads(function), cloudpickle.loads(cloudpickle.dumps(job))
        yield cloudpickle.loads(cloudpickle.dumps(call(job)))


@pytest.mark.filterwarnings("ignore::sklearn_lpntk.exceptions.AutogradRuleWarning")
@pytest.mark.parametrize("name", sorted(set(TRAPS) - {"weight_norm_and_spectral_norm"}))
def test_shards_of_other_processes_fit_together(name):
    net, data, n_logits = TRAPS[name]()
    n = len(next(iter(data.values()))) if isinstance(data, dict) else len(data)
    labels = np.arange(n) % max(n_logits, 2)
    options = {"batch_size": 1}
    expected = Extractor(net, find_cotangent("lpntk"), **options)(data, labels)
    found = gather(Extractor(net, find_cotangent("lpntk"), **options), data, labels, map=in_process)
    torch.testing.assert_close(found.gram(found), expected.gram(expected), rtol=1e-9, atol=1e-12)


def test_a_plan_that_changes_elsewhere_is_everyones():
    net, data = branching()
    extractors = [Extractor(net, find_cotangent("pntk"), batch_size=4) for _ in range(2)]
    with pytest.warns(AutogradRuleWarning):
        expected = extractors[0](data)
    with pytest.warns(AutogradRuleWarning):
        found = gather(extractors[1], data, None, map=in_process)
    torch.testing.assert_close(found.gram(found), expected.gram(expected))


class TestChoice:
    """One line in the log says what was chosen, and why."""

    def line(self, caplog, **options):
        with caplog.at_level(logging.INFO, logger="sklearn_lpntk"):
            empirical_ntk(make_net(), X, y, **options)
        assert len(caplog.records) == 1
        return caplog.records[0].getMessage()

    def test_in_memory(self, caplog):
        line = self.line(caplog)
        assert line.startswith("Exact features of 200 samples and 303 parameters")
        assert line.endswith("in memory, where they fit.")

    def test_a_store(self, caplog, tmp_path):
        assert "in the store" in self.line(caplog, store=tmp_path)

    def test_a_sketch(self, caplog):
        assert self.line(caplog, n_components=16).startswith("Sketched (16 components)")

    def test_too_large(self, caplog, no_memory):
        line = self.line(caplog)
        assert "computed anew at every use, since half of the free memory is" in line

    def test_silent_by_default(self, capfd):
        empirical_ntk(make_net(), X, y)
        assert capfd.readouterr() == ("", "")


def test_available_memory_is_plausible():
    free = memory.available(torch.device("cpu"))
    assert 2**20 < free < 2**50
    assert memory.limit_of(torch.device("cpu")) <= 2 * free
    assert memory.limit_of(torch.device("meta")) is None
