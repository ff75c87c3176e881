"""The store: killed, resumed, shared, damaged, mistaken for another, out of space."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_lpntk._engine import store as store_module
from sklearn_lpntk._engine.shards import pack, unpack
from sklearn_lpntk.exceptions import AutogradRuleWarning, DamagedStoreWarning, StoreMismatchError
from sklearn_lpntk.kernels import empirical_ntk

from ..nets import TRAPS, Wrap

N = 80


def make_net(seed=0, width=8):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 3))


def make_data(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(N, 6)).astype(np.float32), np.arange(N) % 3


X, y = make_data()


def stored(path, **options):
    options = {"batch_size": 8} | options
    return empirical_ntk(options.pop("net", make_net()), X, y, store=path, **options)


@pytest.fixture
def expected():
    return empirical_ntk(make_net(), X, y, batch_size=8).toarray()


def shards(path):
    return sorted(Path(path).rglob("*.shard"))


def forward_passes(net, counts):
    net.register_forward_pre_hook(lambda module, args: counts.append(len(args[0])))
    return net


# -- what it holds ------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::sklearn_lpntk.exceptions.AutogradRuleWarning")
@pytest.mark.parametrize("kernel", ["lpntk", "entk"])
@pytest.mark.parametrize("name", sorted(TRAPS))
def test_the_same_kernel_bit_for_bit(name, kernel, tmp_path):
    net, data, n_logits = TRAPS[name]()
    n = len(next(iter(data.values()))) if isinstance(data, dict) else len(data)
    labels = torch.arange(n) % max(n_logits, 2)
    options = {"kernel": kernel, "batch_size": 4}
    plain = empirical_ntk(net, data, labels, **options)
    operator = empirical_ntk(net, data, labels, store=tmp_path, **options)
    np.testing.assert_array_equal(operator.toarray(), plain.toarray())
    np.testing.assert_array_equal(operator.diag(), plain.diag())
    again = empirical_ntk(net, data, labels, store=tmp_path, **options)
    np.testing.assert_array_equal(again.toarray(), plain.toarray())


def test_every_way_to_read(tmp_path, expected):
    operator = stored(tmp_path)
    rows, cols = np.array([70, 3, 3, 41]), slice(75, 2, -9)
    np.testing.assert_array_equal(operator.block(rows, cols), expected[rows][:, cols])
    np.testing.assert_array_equal(operator.block([], [1]), expected[[]][:, [1]])
    np.testing.assert_allclose(operator.matmul(np.ones(N)), expected.sum(axis=1), rtol=1e-4)
    part = operator._restricted(np.array([9, 70, 12]))
    np.testing.assert_array_equal(part.toarray(), expected[[9, 70, 12]][:, [9, 70, 12]])


def test_columns_of_other_samples(tmp_path):
    X2, y2 = make_data(1)
    plain = empirical_ntk(make_net(), X, y, X2[:20], y2[:20])
    operator = stored(tmp_path, X2=X2[:20], y2=y2[:20], batch_size=256)
    np.testing.assert_array_equal(operator.toarray(), plain.toarray())
    assert {p.name for p in tmp_path.iterdir()} == {"X", "X2"}


def test_a_sketch_needs_no_seed(tmp_path):
    first, second = (stored(tmp_path, n_components=32).toarray() for _ in range(2))
    np.testing.assert_array_equal(first, second)
    with pytest.raises(StoreMismatchError, match="sketch"):
        stored(tmp_path, n_components=32, random_state=1)


def test_other_dtypes_survive_a_file(tmp_path):
    features = empirical_ntk(make_net().double(), X.astype(np.float64), y)._features
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        file = tmp_path / str(dtype)
        file.write_bytes(pack(features.to(dtype)))
        for found, given in zip(unpack(file).tensors, features.to(dtype).tensors):
            assert found.dtype == given.dtype
            assert torch.equal(found, given)


def test_data_are_read_in_slices(tmp_path):
    """An array on disk, or of another library, is never read whole."""

    class Lazy:
        shape, dtype, largest = X.shape, X.dtype, 0

        def __len__(self):
            return len(X)

        def __getitem__(self, rows):
            Lazy.largest = max(Lazy.largest, len(X[rows]))
            return X[rows]

    expected = stored(tmp_path / "array").toarray()
    lazy = empirical_ntk(make_net(), Lazy(), y, batch_size=8)
    np.testing.assert_array_equal(lazy.toarray(), expected)
    assert Lazy.largest <= 8
    found = empirical_ntk(make_net(), Lazy(), y, store=tmp_path / "lazy", batch_size=8)
    np.testing.assert_array_equal(found.toarray(), expected)


# -- resuming -----------------------------------------------------------------------------


def test_what_is_done_is_not_done_again(tmp_path):
    passes = []
    stored(tmp_path)
    assert len(shards(tmp_path)) == 10
    stored(tmp_path, net=forward_passes(make_net(), passes))
    assert passes == []
    for file in shards(tmp_path)[2:5]:
        file.unlink()
    stored(tmp_path, net=forward_passes(make_net(), passes))
    assert len(passes) > 0
    assert len(shards(tmp_path)) == 10


def test_interrupted_in_the_middle(tmp_path, expected):
    """An exception during the fourth shard leaves three, and no other file."""
    net, seen = make_net(), []

    def stop(module, args):
        seen.append(len(args[0]))
        if len(shards(tmp_path)) == 3:
            raise KeyboardInterrupt

    handle = net.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        stored(tmp_path, net=net)
    handle.remove()
    assert len(shards(tmp_path)) == 3
    assert not list(tmp_path.rglob("*.tmp"))
    np.testing.assert_array_equal(stored(tmp_path, net=net).toarray(), expected)


SCRIPT = """
import sys, time, numpy as np, torch
from sklearn_lpntk._engine import store
from sklearn_lpntk.kernels import empirical_ntk
from tests.engine.test_store import make_data, make_net

torch.set_num_threads(1)
whole = store.write_whole
def slowly(file, data):
    # half of the file, then the rest: a kill in between leaves a torn one
    temporary = file.with_name(f"{file.name}.half.tmp")
    temporary.write_bytes(bytes(data[: len(data) // 2]))
    time.sleep(0.02)
    temporary.unlink()
    whole(file, data)
    time.sleep(0.02)
store.write_whole = slowly
X, y = make_data()
print("ready", flush=True)
K = empirical_ntk(make_net(), X, y, store=sys.argv[1], batch_size=8).toarray()
np.save(sys.argv[2], K)
"""


def start(path, result, script=SCRIPT):
    return subprocess.Popen(
        [sys.executable, "-c", script, str(path), str(result)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_at_random_moments(tmp_path, expected):
    rng, result = np.random.default_rng(0), tmp_path / "K.npy"
    for _ in range(4):
        with start(tmp_path / "store", result) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
    with start(tmp_path / "store", result) as process:
        assert process.wait() == 0
    np.testing.assert_array_equal(np.load(result), expected)
    assert len(shards(tmp_path)) == 10


@pytest.mark.skipif(os.name != "posix", reason="needs file locks")
def test_two_processes_share_the_work(tmp_path, expected):
    results = tmp_path / "a.npy", tmp_path / "b.npy"
    with start(tmp_path / "store", results[0]) as a, start(tmp_path / "store", results[1]) as b:
        assert (a.wait(), b.wait()) == (0, 0)
    for result in results:
        np.testing.assert_array_equal(np.load(result), expected)
    assert len(shards(tmp_path)) == 10


def test_a_rule_refuted_in_a_later_shard(tmp_path):
    """The shards under the old plan are deleted, and those who come later know the new one."""

    def forward(self, x):
        out = self.a(x)
        later = (x[:, 0] > 5).any()
        return out + 2 * torch.nn.functional.linear(x, self.a.weight) if later else out

    X = torch.zeros(40, 4).double()
    X[:, 1:] = torch.randn(40, 3)
    X[20:, 0] = 6
    net = Wrap(forward, a=nn.Linear(4, 3)).double()
    options = {"batch_size": 5, "kernel": "pntk"}
    with pytest.warns(AutogradRuleWarning):
        expected = empirical_ntk(net, X, **options).toarray()
    with pytest.warns(AutogradRuleWarning):
        operator = empirical_ntk(net, X, store=tmp_path, **options)
    np.testing.assert_allclose(operator.toarray(), expected, rtol=1e-12)
    again = empirical_ntk(net, X, store=tmp_path, **options)  # nothing is slow any more
    np.testing.assert_allclose(again.toarray(), expected, rtol=1e-12)
    assert len(list((tmp_path / "X").glob("shards-*"))) == 1


# -- refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"net": make_net(1)}, "network differ"),
        ({"kernel": "loss_gradient"}, "kernel differ"),
        ({"parameters": "0"}, "parameters differ"),
        ({"n_components": 9}, "sketch differ"),
        ({"net": make_net().double()}, "network and dtype differ"),
    ],
)
def test_a_store_of_something_else_is_refused_by_name(tmp_path, change, named):
    stored(tmp_path)
    before = {file: file.read_bytes() for file in shards(tmp_path)}
    with pytest.raises(StoreMismatchError, match=rf"the {named}\. Pass another folder"):
        stored(tmp_path, **change)
    assert {file: file.read_bytes() for file in shards(tmp_path)} == before


def test_other_data_are_refused_by_name(tmp_path):
    stored(tmp_path)
    with pytest.raises(StoreMismatchError, match=r"the data X differ\."):
        empirical_ntk(make_net(), X + 1, y, store=tmp_path)
    with pytest.raises(StoreMismatchError, match=r"the labels y differ\."):
        empirical_ntk(make_net(), X, (y + 1) % 3, store=tmp_path)
    with pytest.raises(StoreMismatchError, match=r"n samples, data X and labels y differ"):
        empirical_ntk(make_net(), X[:9], y[:9], store=tmp_path)


def test_the_same_under_other_clothes_is_accepted(tmp_path, expected):
    """Tensor or array, another instance of the net, another batch size."""
    stored(tmp_path)
    operator = empirical_ntk(make_net(), torch.from_numpy(X), y.tolist(), store=str(tmp_path))
    np.testing.assert_array_equal(operator.toarray(), expected)


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "X").mkdir()
    (tmp_path / "X" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"is no store.*thesis.tex"):
        stored(tmp_path)
    assert (tmp_path / "X" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("damage", ["truncate", "flip", "append"])
def test_a_damaged_shard_is_noticed_and_computed_again(tmp_path, expected, damage):
    stored(tmp_path)
    file = shards(tmp_path)[4]
    data = bytearray(file.read_bytes())
    if damage == "truncate":
        data = data[:-100]
    elif damage == "flip":
        data[len(data) // 2] ^= 1
    else:
        data += b"x"
    file.write_bytes(data)
    with pytest.warns(DamagedStoreWarning, match=rf"1 files.*{file.name}"):
        operator = stored(tmp_path)
    np.testing.assert_array_equal(operator.toarray(), expected)


@pytest.mark.parametrize("text", ["", "{}", '{"identity": 3, "checksum": "00000000"}'])
def test_a_damaged_manifest_is_refused(tmp_path, text):
    stored(tmp_path)
    (tmp_path / "X" / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest of the store .* is damaged\. Delete"):
        stored(tmp_path)


def test_an_edited_manifest_is_refused(tmp_path):
    stored(tmp_path)
    file = tmp_path / "X" / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["shard_rows"] = 16
    file.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="damaged"):
        stored(tmp_path)


def test_a_shard_that_goes_away_is_named(tmp_path):
    operator = stored(tmp_path)
    shards(tmp_path)[3].unlink()
    with pytest.raises(FileNotFoundError, match=r"Shard 3 of the store .* is gone"):
        operator.toarray()


# -- no space -----------------------------------------------------------------------------


def test_a_full_disk_leaves_a_store_that_goes_on(tmp_path, monkeypatch, expected):
    fsync, calls = os.fsync, []

    def full(file):
        calls.append(file)
        if len(calls) == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(file)

    monkeypatch.setattr(store_module.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space is left .*4 of 10 shards are done.*goes on"):
        stored(tmp_path)
    monkeypatch.undo()
    assert len(shards(tmp_path)) == 4
    assert not list(tmp_path.rglob("*.tmp"))
    np.testing.assert_array_equal(stored(tmp_path).toarray(), expected)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the size of files")
def test_the_system_says_no(tmp_path, expected):
    """A real refusal by the system, in the middle of a write."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1100, 1100))\n"
    with start(
        tmp_path, tmp_path / "K.npy", limit + SCRIPT.replace("slowly\n", "whole\n")
    ) as process:
        message = process.stderr.read().decode()
    assert "0 of 10 shards are done" in message
    assert f"Errno {errno.EFBIG}" in message
    np.testing.assert_array_equal(stored(tmp_path).toarray(), expected)
