"""The store: killed, resumed, shared, damaged, mistaken for another, out of space."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_lpntk._engine import gather as gather_module
from sklearn_lpntk._engine import store as store_module
from sklearn_lpntk._engine.shards import pack, unpack
from sklearn_lpntk._engine.trace import Tracer
from sklearn_lpntk._runtime.locks import wait_for_lock
from sklearn_lpntk.exceptions import AutogradRuleWarning, DamagedStoreWarning, StoreMismatchError
from sklearn_lpntk.kernels import empirical_ntk

from ..nets import TRAPS, Wrap, branching

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


@pytest.fixture
def passed(monkeypatch):
    """Numbers of samples in the batches that went through the network."""
    counts, trace = [], Tracer.__call__

    def counted(self, x, y, **options):
        counts.append(len(y))
        return trace(self, x, y, **options)

    monkeypatch.setattr(Tracer, "__call__", counted)
    return counts


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
    part = operator.restricted(np.array([9, 70, 12]))
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
    features = empirical_ntk(make_net().double(), X.astype(np.float64), y).kernel.left
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


def test_what_is_done_is_not_done_again(tmp_path, passed):
    stored(tmp_path)
    assert passed == 11 * [8]  # the first batch tells how large the shards are
    assert len(shards(tmp_path)) == 10
    passed.clear()
    stored(tmp_path)
    assert passed == []
    for file in shards(tmp_path)[2:5]:
        file.unlink()
    stored(tmp_path)
    assert passed == 3 * [8]
    assert len(shards(tmp_path)) == 10


def test_interrupted_in_the_middle(tmp_path, expected, monkeypatch):
    """An exception during the fourth shard leaves three, and no other file."""

    def stop(self, *args, **options):
        if len(shards(tmp_path)) == 3:
            raise KeyboardInterrupt
        return trace(self, *args, **options)

    trace = Tracer.__call__
    monkeypatch.setattr(Tracer, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        stored(tmp_path)
    monkeypatch.undo()
    assert len(shards(tmp_path)) == 3
    assert not list(tmp_path.rglob("*.tmp"))
    np.testing.assert_array_equal(stored(tmp_path).toarray(), expected)


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
    net, X = branching()
    options = {"batch_size": 5, "kernel": "pntk"}
    with pytest.warns(AutogradRuleWarning):
        expected = empirical_ntk(net, X, **options).toarray()
    with pytest.warns(AutogradRuleWarning):
        operator = empirical_ntk(net, X, store=tmp_path, **options)
    np.testing.assert_allclose(operator.toarray(), expected, rtol=1e-12)
    again = empirical_ntk(net, X, store=tmp_path, **options)  # nothing is slow any more
    np.testing.assert_allclose(again.toarray(), expected, rtol=1e-12)
    assert len(list((tmp_path / "X").glob("shards-*"))) == 1


@pytest.mark.filterwarnings("ignore::sklearn_lpntk.exceptions.AutogradRuleWarning")
@pytest.mark.parametrize("again", [False, True])
def test_other_samples_that_refute_a_rule(tmp_path, again):
    net, X = branching()
    options = {"batch_size": 5, "kernel": "pntk"}
    expected = empirical_ntk(net, X[:20], None, X[20:], **options).toarray()
    if again:  # each of the two stores is complete, under a plan of its own
        empirical_ntk(net, X[:20], store=tmp_path, **options)
    for _ in range(2):
        found = empirical_ntk(net, X[:20], None, X[20:], store=tmp_path, **options).toarray()
        np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.filterwarnings("ignore::sklearn_lpntk.exceptions.AutogradRuleWarning")
def test_a_plan_that_changes_while_others_are_at_work(tmp_path, monkeypatch):
    """The folder of the old plan goes away under whoever still works by it."""
    net, X = branching()
    options = {"batch_size": 4, "kernel": "pntk", "store": tmp_path}
    expected = empirical_ntk(net, X, batch_size=4, kernel="pntk").toarray()
    fill, calls = gather_module._fill, []

    def interrupted(store, extractor, sketch, plan, job):
        calls.append(job[0])
        if len(calls) == 3:
            monkeypatch.undo()
            empirical_ntk(net, X, **options)  # another process, from beginning to end
        return fill(store, extractor, sketch, plan, job)

    monkeypatch.setattr(gather_module, "_fill", interrupted)
    np.testing.assert_allclose(empirical_ntk(net, X, **options).toarray(), expected, rtol=1e-10)


@pytest.mark.filterwarnings("ignore::sklearn_lpntk.exceptions.AutogradRuleWarning")
@pytest.mark.skipif(os.name != "posix", reason="needs file locks")
def test_plans_are_merged_under_the_lock(tmp_path):
    a, b = (store_module.Store(tmp_path, {}, 10, 5) for _ in range(2))
    a.begin(100)
    a.merge(["u"])
    assert b.merge(["v"]) == ["u", "v"]
    assert a.merge([]) == ["u", "v"]
    with wait_for_lock(tmp_path / "lock"):
        thread = threading.Thread(target=a.merge, args=(["w"],))
        thread.start()
        thread.join(timeout=0.2)
        assert thread.is_alive()
    thread.join()
    assert b.merge([]) == ["u", "v", "w"]


def test_batches_of_other_lengths_fit_together(tmp_path):
    """Another form may be cheaper for them, and a run that goes on sees these first."""

    def forward(self, x):
        x = x[:, : int((x != 0).sum(1).max())]
        return self.out(torch.tanh(self.mix(self.embed(x))).sum(1))

    torch.manual_seed(0)
    net = Wrap(
        forward,
        embed=nn.Embedding(50, 64, padding_idx=0),
        mix=nn.Linear(64, 64),
        out=nn.Linear(64, 3),
    ).double()
    X = torch.randint(1, 50, (80, 30))
    X[:40, 2:] = 0
    labels = torch.arange(80) % 3
    options = {"batch_size": 10, "store": tmp_path}
    expected = empirical_ntk(net, X, labels, batch_size=10).toarray()
    np.testing.assert_allclose(empirical_ntk(net, X, labels, **options).toarray(), expected)
    for file in shards(tmp_path)[4:]:
        file.unlink()
    found = empirical_ntk(net, X, labels, **options)
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-9)


def test_leftovers_of_a_killed_process(tmp_path, expected):
    folder = tmp_path / "X"
    folder.mkdir()
    (folder / "manifest.json.4711.tmp").write_text("{")
    stored(tmp_path)
    file = shards(tmp_path)[3]
    torn = file.with_name(f"{file.name}.4711.tmp")
    torn.write_bytes(b"half")
    file.unlink()
    np.testing.assert_array_equal(stored(tmp_path).toarray(), expected)
    assert not torn.exists()


def test_a_relative_path_outlives_a_change_of_folder(tmp_path, expected, monkeypatch):
    monkeypatch.chdir(tmp_path)
    operator = stored("features")
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(operator.toarray(), expected)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs another user")
def test_who_may_only_read_can_open_it(tmp_path, expected):
    stored(tmp_path)
    script = SCRIPT.replace("X, y = make_data()", "import os; os.setuid(65534); X, y = make_data()")
    script = script.replace(
        "np.save(sys.argv[2], K)", "print(np.array_equal(K, np.load(sys.argv[2])))"
    )
    np.save(tmp_path / "K.npy", expected)
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    with start(tmp_path, tmp_path / "K.npy", script) as process:
        assert process.stdout.read().split() == [b"ready", b"True"], process.stderr.read()


# -- refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"net": make_net(1)}, "network"),
        (
            {"kernel": "loss_gradient"},
            r"kernel \(lpntk, asked for loss_gradient\)",
        ),
        ({"parameters": "0"}, "parameters"),
        ({"n_components": 9}, r"sketch \(none, asked for 9 components of seed \d+\)"),
        (
            {"net": make_net().double()},
            r"network, dtype \(torch.float32, asked for torch.float64\)",
        ),
    ],
)
def test_a_store_of_something_else_is_refused_by_name(tmp_path, change, named):
    stored(tmp_path)
    before = {file: file.read_bytes() for file in shards(tmp_path)}
    with pytest.raises(StoreMismatchError, match=rf"What differs: {named}\. Pass another folder"):
        stored(tmp_path, **change)
    assert {file: file.read_bytes() for file in shards(tmp_path)} == before


def test_other_data_are_refused_by_name(tmp_path):
    stored(tmp_path)
    with pytest.raises(StoreMismatchError, match=r"differs: data X\."):
        empirical_ntk(make_net(), X + 1, y, store=tmp_path)
    with pytest.raises(StoreMismatchError, match=r"differs: labels y\."):
        empirical_ntk(make_net(), X, (y + 1) % 3, store=tmp_path)
    with pytest.raises(
        StoreMismatchError, match=r"n_samples \(80, asked for 9\), data X, labels y\."
    ):
        empirical_ntk(make_net(), X[:9], y[:9], store=tmp_path)


def test_the_same_under_other_clothes_is_accepted(tmp_path, expected):
    """Tensor or array, another instance of the net, another batch size."""
    stored(tmp_path)
    operator = empirical_ntk(make_net(), torch.from_numpy(X), y.tolist(), store=str(tmp_path))
    np.testing.assert_array_equal(operator.toarray(), expected)


class Scaled(nn.Module):
    """What its logits depend on that is no parameter, and no public attribute."""

    def __init__(self, value):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self._value = nn.Linear(6, 3), value
        self.register_buffer("_factor", torch.tensor(value), persistent=False)
        self.modes = {"sum", "mean", "max", "min"}
        self.register_buffer("ones", torch.ones(2, dtype=torch.bfloat16))

    def forward(self, x):
        return self._value * self._factor * self.layer(x)


def test_hidden_state_counts(tmp_path):
    stored(tmp_path / "a", net=Scaled(2.0))
    stored(tmp_path / "a", net=Scaled(2.0))
    with pytest.raises(StoreMismatchError, match="network"):
        stored(tmp_path / "a", net=Scaled(3.0))
    other = Scaled(2.0)
    other._factor.fill_(5)
    with pytest.raises(StoreMismatchError, match="network"):
        stored(tmp_path / "a", net=other)
    hooked = Scaled(2.0)
    hooked.register_forward_hook(lambda module, args, out: 2 * out)
    with pytest.raises(StoreMismatchError, match="network"):
        stored(tmp_path / "a", net=hooked)


WEIGHTS = [1.0, 2.0, 3.0]


def weighted(logits, labels):
    return torch.tensor(WEIGHTS).expand(len(logits), 3)


def test_globals_of_a_kernel_count(tmp_path, monkeypatch):
    stored(tmp_path, kernel=weighted)
    stored(tmp_path, kernel=weighted)
    monkeypatch.setitem(globals(), "WEIGHTS", [1.0, 2.0, 4.0])
    with pytest.raises(StoreMismatchError, match=r"kernel \(weighted, asked for weighted\)"):
        stored(tmp_path, kernel=weighted)


def test_the_fingerprint_of_a_set_is_the_same_in_every_process():
    script = (
        "from sklearn_lpntk._runtime.fingerprint import fingerprint as f; print(f({'a', 'b', 'c'}))"
    )
    digests = {
        subprocess.check_output(
            [sys.executable, "-c", script], env=os.environ | {"PYTHONHASHSEED": seed}
        )
        for seed in "123"
    }
    assert len(digests) == 1


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

    monkeypatch.setattr(os, "fsync", full)
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
