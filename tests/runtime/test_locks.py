"""Locks and files in a folder that others share: forks, planted links, a home folder."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from torch import nn

from sklearn_lpntk import RedundancyPruner
from sklearn_lpntk._engine import store as store_module
from sklearn_lpntk._runtime import files
from sklearn_lpntk._runtime.files import write_whole
from sklearn_lpntk._runtime.locks import try_lock, wait_for_lock
from sklearn_lpntk.kernels import empirical_ntk

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs file locks and links")


def is_free(file):
    with try_lock(file) as free:
        return free


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
class TestFork:
    @staticmethod
    def fork(life):
        """A child that waits until the pipe's end, which is returned, is closed."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(write)
            try:
                life(read)
            finally:
                os._exit(0)
        os.close(read)
        return child, write

    @pytest.mark.parametrize("lock", [wait_for_lock, try_lock])
    def test_a_child_that_lives_on_does_not_keep_the_lock(self, lock, tmp_path):
        with lock(tmp_path / "lock"):
            child, write = self.fork(lambda read: os.read(read, 1))
        try:
            assert is_free(tmp_path / "lock")
        finally:
            os.close(write)
            os.waitpid(child, 0)

    def test_a_child_that_leaves_the_block_does_not_open_the_lock(self, tmp_path):
        lock = wait_for_lock(tmp_path / "lock")
        with lock:
            child, write = self.fork(lambda read: lock.__exit__(None, None, None))
            os.waitpid(child, 0)
            os.close(write)
            assert not is_free(tmp_path / "lock")
        assert is_free(tmp_path / "lock")


class TestLinks:
    @pytest.fixture
    def thesis(self, tmp_path):
        file = tmp_path / "thesis.tex"
        file.write_text("years of work")
        yield file
        assert file.read_text() == "years of work"

    @pytest.mark.parametrize("lock", [wait_for_lock, try_lock])
    def test_a_lock_is_not_taken_through_a_link(self, lock, thesis, tmp_path):
        (tmp_path / "lock").symlink_to(thesis)
        with pytest.raises(OSError, match=r"lock file .*lock is a link.* Delete it"):
            lock(tmp_path / "lock").__enter__()

    @pytest.mark.parametrize("lock", [wait_for_lock, try_lock])
    def test_a_lock_leaves_what_its_file_holds(self, lock, thesis):
        with lock(thesis):
            pass

    def test_a_link_to_nothing_makes_no_file(self, tmp_path):
        (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(OSError, match="is a link"):
            wait_for_lock(tmp_path / "lock").__enter__()
        assert not (tmp_path / "elsewhere").exists()

    def test_a_guessed_name_of_a_temporary_file(self, thesis, tmp_path, monkeypatch):
        monkeypatch.setattr(files.secrets, "token_hex", lambda n: "guessed")
        (tmp_path / "shard.guessed.tmp").symlink_to(thesis)
        with pytest.raises(FileExistsError):
            write_whole(tmp_path / "shard", b"data")
        assert not (tmp_path / "shard").exists()

    def test_names_of_temporary_files_are_drawn(self, tmp_path, monkeypatch):
        names = []
        monkeypatch.setattr(os, "replace", lambda one, other: names.append(Path(one).name))
        for _ in range(5):
            write_whole(tmp_path / "shard", b"data")
        assert len(set(names)) == 5
        assert not any(str(os.getpid()) == name.split(".")[1] for name in names)

    def test_links_among_the_leftovers_of_a_store(self, thesis, tmp_path):
        """Planted where a killed process's files would be, they are cleared away, not followed."""
        store = store_module.Store(tmp_path / "store", {}, 10, 5)
        (store.path / "manifest.json.ab.tmp").symlink_to(thesis)
        store.begin(100)
        assert not list(store.path.glob("*.tmp"))
        shard = store.path / f"shards-{store_module._checksum(b'[]')}" / "000001-ab.shard"
        shard.with_name("000001-ab.shard.cd.tmp").symlink_to(thesis)
        store.write(1, features())
        assert not list(store.path.rglob("*.tmp"))
        assert store.file(1).is_file()

    def test_a_manifest_that_is_a_link_is_replaced(self, thesis, tmp_path):
        write_whole(tmp_path / "file", b"old")
        (tmp_path / "manifest.json").symlink_to(thesis)
        write_whole(tmp_path / "manifest.json", b"new")
        assert (tmp_path / "manifest.json").read_bytes() == b"new"
        assert not (tmp_path / "manifest.json").is_symlink()


def features():
    net = nn.Linear(2, 3)
    return empirical_ntk(net, torch.ones(5, 2), torch.arange(5) % 3).kernel.left


class TestHome:
    @pytest.fixture
    def home(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        yield tmp_path / "home"
        assert not list((tmp_path / "work").iterdir())

    @pytest.mark.parametrize("kind", [str, Path])
    def test_stores(self, kind, home):
        net, X = nn.Linear(4, 3), torch.rand(6, 4)
        empirical_ntk(net, X, torch.arange(6) % 3, store=kind("~/features"))
        assert (home / "features" / "X" / "manifest.json").exists()
        assert store_module.Store("~/other", {}, 3, 1).path == home / "other"

    def test_caches_and_stores_of_an_estimator(self, home):
        X, y = load_iris(return_X_y=True)
        options = {"memory": "~/cache", "store": "~/store", "random_state": 0}
        found = RedundancyPruner(prune_fraction=0.5, **options).fit_resample(X, y)
        assert {p.name for p in home.iterdir()} == {"cache", "store"}
        again = RedundancyPruner(prune_fraction=0.5, **options).fit_resample(X, y)
        np.testing.assert_array_equal(found[0], again[0])


def test_threads_wait_for_each_other(tmp_path):
    with wait_for_lock(tmp_path / "lock"):
        thread = threading.Thread(target=is_free_after, args=(tmp_path / "lock",))
        thread.start()
        thread.join(timeout=0.1)
        assert thread.is_alive()
    thread.join()


def is_free_after(file):
    with wait_for_lock(file):
        pass
