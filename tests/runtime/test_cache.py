"""The cache: damaged files, what the log tells, and keys that can't be found again."""

import functools
import logging
import threading
from contextlib import suppress

import numpy as np
import pytest
import torch
from joblib import Memory
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_lpntk import RedundancyPruner
from sklearn_lpntk._runtime import cache as cache_module
from sklearn_lpntk._runtime.cache import cached

X, y = load_iris(return_X_y=True)


class Module(nn.Module):
    def __init__(self, n_hidden=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, n_hidden), nn.ReLU(), nn.Linear(n_hidden, 3))

    def forward(self, x):
        return self.layers(x)


def make_pruner(folder, module=Module, **options):
    net = NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, max_epochs=2, train_split=None, verbose=0
    )
    return RedundancyPruner(net=net, memory=str(folder), **{"random_state": 0} | options)


@pytest.fixture(autouse=True)
def _nothing_changed_yet():
    cache_module._changes.clear()
    cache_module._warned.clear()


CALLED = {"lock": threading.Lock()}


class Locked(Module):
    def forward(self, x):
        with CALLED["lock"]:
            return super().forward(x)


class TestDamage:
    VALUE = {"weights": np.arange(50.0), "name": "net"}

    @pytest.fixture
    def calls(self):
        return []

    @pytest.fixture
    def fetch(self, tmp_path, calls):
        def compute():
            calls.append(1)
            return self.VALUE

        def fetch():
            found = cached(str(tmp_path), "value", compute, {"a": 1, "b": [2, 3]})
            np.testing.assert_equal(found, self.VALUE)
            return len(calls)

        return fetch

    def files(self, folder):
        """All but those that joblib writes and no one reads."""
        found = [file for file in folder.rglob("*") if file.is_file() and file.stat().st_size]
        return [file for file in found if file.name != ".gitignore"]

    def test_any_flipped_byte_is_noticed_once(self, fetch, tmp_path):
        fetch()
        for file in self.files(tmp_path):
            whole = file.read_bytes()
            for i in {*range(0, len(whole), 37), *range(70), len(whole) - 1}:
                for bit in (1, 32, 255):
                    damaged = bytearray(whole)
                    damaged[i] ^= bit
                    file.write_bytes(damaged)
                    with pytest.warns(UserWarning, match=r"file of memory=, .* is damaged, so the"):
                        n = fetch()
                    assert fetch() == n
        assert n > 100

    @pytest.mark.parametrize("length", [0, 1, 64, 65, 100, -1])
    def test_a_truncated_file(self, length, fetch, tmp_path):
        fetch()
        for file in self.files(tmp_path):
            file.write_bytes(file.read_bytes()[:length])
            with pytest.warns(UserWarning, match="damaged"):
                assert fetch() == 2
        assert fetch() == 2

    def test_a_sound_file_that_can_not_be_unpickled(self, fetch, tmp_path, monkeypatch):
        monkeypatch.setattr(cache_module, "_dumps", lambda value: b"cno_such_module\nname\n.")
        fetch()
        monkeypatch.undo()
        with pytest.warns(UserWarning, match=r"it can't be unpickled \(ModuleNotFoundError"):
            assert fetch() == 2
        assert fetch() == 2

    def test_leftovers_of_a_killed_process(self, fetch, tmp_path):
        fetch()
        (file,) = self.files(tmp_path)
        left = file.with_name("output.pkl.ab.tmp")
        left.write_bytes(b"half")
        file.unlink()
        assert fetch() == 2
        assert not left.exists()

    def test_a_pruner_survives_the_damage_of_every_file(self, tmp_path):
        expected = make_pruner(tmp_path).fit(X, y).prune_order_
        files = self.files(tmp_path)
        assert len(files) == 2
        for file in files:
            file.write_bytes(file.read_bytes()[:-3])
            with pytest.warns(UserWarning, match="damaged"):
                found = make_pruner(tmp_path).fit(X, y)
            np.testing.assert_array_equal(found.prune_order_, expected)
        np.testing.assert_array_equal(make_pruner(tmp_path).fit(X, y).prune_order_, expected)

    def test_joblib_can_clear_and_reduce_it(self, fetch, tmp_path):
        fetch()
        Memory(tmp_path, verbose=0).reduce_size(bytes_limit=1)
        assert fetch() == 2
        Memory(tmp_path, verbose=0).clear(warn=False)
        assert fetch() == 3

    def test_of_several_threads_one_computes(self, fetch, calls):
        threads = [threading.Thread(target=fetch) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(calls) == 1


@pytest.mark.filterwarnings("default:memory= is not used:UserWarning")
def test_what_has_no_value_is_computed_without_the_cache(tmp_path):
    expected = make_pruner(tmp_path / "other", Module).fit(X, y).prune_order_
    pruner = make_pruner(tmp_path / "cache", Locked)
    match = r"memory= is not used .*net\.module\.forward\.CALLED\.lock \(_thread\.lock\)"
    with pytest.warns(UserWarning, match=match):
        found = pruner.fit(X, y).prune_order_
    np.testing.assert_array_equal(found, expected)
    assert not list((tmp_path / "cache").rglob("output.pkl"))


class TestLog:
    @pytest.fixture
    def said(self, caplog):
        caplog.set_level(logging.INFO, "sklearn_lpntk")

        def said():
            lines = [r.getMessage() for r in caplog.records if "Cache" in r.getMessage()]
            caplog.clear()
            return lines

        return said

    def test_hits_and_misses(self, said, tmp_path):
        make_pruner(tmp_path).fit(X, y)
        net, order = said()
        assert net == "Cache miss: the trained net is computed; there is no entry yet."
        assert order.startswith("Cache miss: the order is computed")
        make_pruner(tmp_path).fit(X, y)
        net, order = said()
        assert net.startswith(f"Cache hit: the trained net is read from {tmp_path}")
        assert order.startswith("Cache hit: the order is read from")

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"net__lr": 0.5}, "net.lr"),
            ({"net__module__n_hidden": 5}, "net.module__n_hidden"),
            ({"net__module": nn.Identity, "net__lr": 1}, "net.lr, net.module"),
            ({"random_state": 1}, "seed"),
        ],
    )
    def test_what_differs_is_named(self, change, named, said, tmp_path):
        make_pruner(tmp_path).fit(X, y)
        make_pruner(tmp_path).set_params(net__lr=7, random_state=7).fit(X + 1, y)
        said()
        with suppress(ValueError):  # of what can't be trained
            make_pruner(tmp_path).set_params(**change).fit(X, y)
        assert said()[0].endswith(f"the nearest entry differs in {named}.")

    def test_options_of_a_strategy_are_named(self, said, tmp_path):
        make_pruner(tmp_path).fit(X, y)
        make_pruner(tmp_path, kernel="pntk").fit(X, y)
        assert said()[-1].endswith("the nearest entry differs in kernel.")
        make_pruner(tmp_path).fit(X, (y + 1) % 3)
        assert said()[0].endswith("the nearest entry differs in y.")


N_CALLS = 0


class Counting(Module):
    def forward(self, x):
        global N_CALLS
        N_CALLS += 1
        return super().forward(x)


STATE = {"ready": False, "calls": 0}


def uses_state(key):
    return STATE[key]


class Linear(nn.Linear):
    def __init__(self):
        super().__init__(4, 3)


class TestNeverFound:
    def test_a_counter_in_the_code_is_warned_of(self, tmp_path):
        pruner = make_pruner(tmp_path, Counting)
        pruner.fit(X, y)
        match = r"can't find the trained net again: what it depends on, net\.module, is another"
        with pytest.warns(UserWarning, match=match):
            clone(pruner).fit(X, y)

    def test_only_what_changes_at_every_call_is_warned_of(self, tmp_path, monkeypatch):
        def call(a, **change):
            compute = functools.partial(STATE.update, change)
            cached(str(tmp_path), "value", compute, {"code": uses_state, "a": a})

        monkeypatch.setattr(f"{__name__}.STATE", dict(STATE))
        for a in range(3):
            call(a, ready=True)
        with pytest.warns(UserWarning, match="can't find the value again: .*, code, is another"):
            call(3, calls=1)
        call(4, calls=2)  # warned of once

    @pytest.mark.parametrize(
        "grid",
        [
            {"net__lr": [0.1, 0.2, 0.3, 0.4]},
            {"net__module__n_hidden": [3, 4, 5, 6]},
            {"net": [make_pruner("", m).net for m in (Module, Linear, Module(3), Module(4))]},
            {"net__optimizer": [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW]},
            {"kernel": ["lpntk", "pntk", lambda z, y: z + 1, lambda z, y: z + 2]},
        ],
        ids=lambda grid: next(iter(grid)),
    )
    def test_no_grid_is_taken_for_one(self, grid, tmp_path):
        """Warnings are errors here: each candidate is computed in its own right."""
        search = GridSearchCV(make_pruner(tmp_path), grid, cv=3, refit=False, error_score="raise")
        search.set_params(scoring=lambda estimator, X, y: 0.0).fit(X, y)
        n = len(list(tmp_path.rglob("output.pkl")))
        search.fit(X, y)
        assert len(list(tmp_path.rglob("output.pkl"))) == n
