"""What large data sets cost: counts, ratios of CPU time on one thread, and peak memory.

Each experiment prints its rows and keeps them in ``artifacts/scale``; ``table`` writes those of
all to ``docs/scale_table.rst``. Run ``python benchmarks/bench_scale.py mnist`` (or another one,
or ``all``); ``--quick`` shrinks everything to see that it runs. MNIST comes from OpenML, and
``resnet`` needs ``--cifar``, an npz file with uint8 images ``X_train`` and labels ``y_train``.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from nets import lenet5, resnet18
from torch import nn

from sklearn_lpntk._engine.bounds import Bounds
from sklearn_lpntk._engine.reductions import dominated, row_extremes
from sklearn_lpntk._engine.relations import count_relations
from sklearn_lpntk._engine.rows import SpeculativeRows
from sklearn_lpntk._engine.sketch import Sketch
from sklearn_lpntk.cluster._traversal import farthest_point_clustering
from sklearn_lpntk.datasets import fetch_mnist_images
from sklearn_lpntk.kernels import empirical_ntk

RESULTS = Path("artifacts/scale")
TABLE = Path("docs/scale_table.rst")
REDUNDANT_BY = 1e-5


# -- measuring ----------------------------------------------------------------------------


def cpu_seconds(function):
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def best_of(function, repeats):
    """The least CPU time of a few runs, in seconds a run of many calls."""
    function()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        for _ in range(10):
            function()
        seconds.append((time.process_time() - start) / 10)
    return min(seconds)


def memory(field):
    """Bytes of a field of this process's status (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


class PeakMemory:
    """Bytes that a process takes at most beyond what it has at the start."""

    def __init__(self):
        Path("/proc/self/clear_refs").write_text("5")
        self._before = memory("VmRSS")

    @property
    def gigabytes(self):
        return (memory("VmHWM") - self._before) / 1e9


def train(net, X, y, *, epochs=5, lr=0.05, batch_size=128, seed=0):
    """Plain SGD with momentum."""
    torch.manual_seed(seed)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    net.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(y)).split(batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(X[rows]), y[rows]).backward()
            optimizer.step()
    return net.eval()


def mnist(n):
    X, y = fetch_mnist_images()
    X, y = torch.from_numpy(np.asarray(X[:n], dtype=np.float32)), torch.as_tensor(y[:n])
    X = X.reshape(-1, 1, 28, 28)
    return X, y.long(), train(lenet5(), X, y.long())


def symmetric_pass(operator):
    """CPU time of all tiles of a symmetric kernel, nothing read off them."""
    return cpu_seconds(lambda: sum(1 for _ in operator.kernel.tiles()))[0]


# -- experiments --------------------------------------------------------------------------


def run_mnist(options):
    n = 2000 if options.quick else 60_000
    X, y, net = mnist(n)
    peak = PeakMemory()
    seconds, operator = cpu_seconds(lambda: empirical_ntk(net, X, y))
    case = f"MNIST {n:,} x LeNet-5"
    yield f"{case}: features", f"{seconds:.0f} s", ""
    whole = symmetric_pass(operator)
    yield f"{case}: all tiles of the symmetric kernel", f"{whole:.0f} s", ""
    seconds, found = cpu_seconds(lambda: dominated(operator.kernel, REDUNDANT_BY))
    yield (
        f"{case}: all redundancy decisions ({found.mask.float().mean():.1%} redundant)",
        f"{found.n_evaluated / n**2:.2%} of N², {seconds:.0f} s = {seconds / whole:.2f} passes",
        "12 %, 0.33 passes",
    )
    seconds, found = cpu_seconds(lambda: row_extremes(operator.kernel))
    yield (
        f"{case}: all redundancy scores with dominators",
        f"{found.n_evaluated / n**2:.2%} of N², {seconds:.0f} s = {seconds / whole:.2f} passes",
        "25 %",
    )
    yield f"{case}: peak memory above the data", f"{peak.gigabytes:.2f} GB", "2 GB"
    yield from clustering(operator, case, n // 10, whole)
    yield f"{case}: peak memory above the data, with clustering", f"{peak.gigabytes:.2f} GB", "2 GB"


def clustering(operator, case, n_clusters, whole):
    n = operator.shape[0]

    def run():
        rows = SpeculativeRows(operator.kernel, bounds=Bounds(operator.kernel))
        farthest_point_clustering(operator.diag(), rows, n_clusters)
        return rows.n_evaluated

    seconds, evaluated = cpu_seconds(run)
    yield (
        f"{case}: farthest point clustering, {n_clusters:,} centroids",
        f"{evaluated / n**2:.2%} of N², {seconds:.0f} s = {seconds / whole:.2f} passes",
        "1 pass",
    )


def run_weak(options):
    """Where bounds help little: reported for honesty."""
    n = 1000 if options.quick else 10_000
    X, y, net = mnist(n)
    operator = empirical_ntk(net, X, y)
    whole = symmetric_pass(operator)
    case = f"MNIST {n:,} x LeNet-5"
    seconds, found = cpu_seconds(lambda: count_relations(operator.kernel, 0.5, 0.1))
    yield (
        f"{case}: relations of all pairs (thresholds 0.5 and 0.1)",
        f"{found[1] / n**2:.2%} of N², {seconds:.0f} s = {seconds / whole:.2f} passes",
        "",
    )
    for k, largest in ((5, True), (5, False)):
        what = "interchangeable" if largest else "contradictory"
        seconds, found = cpu_seconds(
            lambda k=k, largest=largest: row_extremes(operator.kernel, k, largest=largest)
        )
        yield (
            f"{case}: the {k} most {what} partners of each",
            f"{found.n_evaluated / n**2:.2%} of N² in single precision, {seconds:.1f} s = "
            f"{seconds / whole:.2f} passes",
            "",
        )


def run_sgemm(options):
    n = 2000
    net, X, y = lenet5().eval(), torch.rand(n, 1, 28, 28), torch.arange(n) % 10
    operator = empirical_ntk(net, X, y)
    size = operator.kernel.tile
    left, right = (operator.kernel.left.take(slice(i, i + size)) for i in (0, size))
    numbers = sum(t[..., :1, :].numel() for f in left.factors.values() for t in f.tensors)
    a, b = torch.rand(size, numbers), torch.rand(size, numbers)
    flops = 2 * size * size * numbers
    repeats = 2 if options.quick else 10
    ours, plain = best_of(lambda: left.gram(right), repeats), best_of(lambda: a @ b.T, repeats)
    yield (
        f"a tile of LeNet-5, {size} x {size} x {numbers:,}, against a plain product of that shape",
        f"{flops / ours / 1e9:.0f} against {flops / plain / 1e9:.0f} GFLOP/s = {plain / ours:.0%}",
        "70 %",
    )


def run_sketch(options):
    """Error and speed against a dense Rademacher projection of the same size."""
    n, m = (40, 256) if options.quick else (400, 4096)
    X, y, net = mnist(2000 if options.quick else 10_000)
    features = empirical_ntk(net, X[:n], y[:n]).kernel.left
    phi = features.materialise()
    exact = phi @ phi.T
    errors = [], []
    for seed in range(2 if options.quick else 5):
        sketch = Sketch(m, seed)
        ours = sketch(features)
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(2, (phi.shape[1], m), generator=generator, dtype=torch.int8)
        signs = (2 * signs - 1).float() / m**0.5
        dense = phi @ signs
        for own, Z in zip(errors, (ours.materialise(), dense)):
            own.append((Z @ Z.T - exact).norm().item() / exact.norm().item())
    spent = best_of(lambda: sketch(features), 2), best_of(lambda: phi @ signs, 1)
    error, peer = (float(np.mean(e)) for e in errors)
    yield (
        f"LeNet-5, sketch of {m:,}: relative Frobenius error against dense Rademacher",
        f"{error:.2%} against {peer:.2%} = {error / peer:.2f} times",
        "2.5 times",
    )
    yield (
        f"LeNet-5, sketch of {m:,}: time against dense Rademacher",
        f"{spent[0] / n * 1e3:.2f} against {spent[1] / n * 1e3:.2f} ms a sample = "
        f"{spent[1] / spent[0]:.0f} times faster",
        "20 times",
    )


class Blocks:
    """A synthetic data set that is generated as it is read: 100 classes, each a Gaussian."""

    dtype, block = np.dtype(np.float32), 1000

    def __init__(self, n, n_classes=100):
        self.shape, self.n_classes = (n, 784), n_classes
        self.y = np.arange(n) // (n // n_classes)
        self.centers = np.random.default_rng(0).normal(size=(n_classes, 784)).astype(np.float32)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        first, last = rows.start // self.block, -(-rows.stop // self.block)
        parts = [self._make(i) for i in range(first, last)]
        start = first * self.block
        return np.concatenate(parts)[rows.start - start : rows.stop - start]

    def _make(self, i):
        rows = np.arange(i * self.block, min((i + 1) * self.block, len(self)))
        noise = np.random.default_rng((1, i)).standard_normal((len(rows), 784), dtype=np.float32)
        return 0.3 * self.centers[self.y[rows]] + noise


def run_million(options):
    n = 20_000 if options.quick else 1_000_000
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 100))
    sample = Blocks(20_000)
    train(net, torch.from_numpy(sample[slice(0, 20_000)]), torch.from_numpy(sample.y), epochs=2)
    seconds = {}
    peak = PeakMemory()
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        for size in (n // 10, n):
            X = Blocks(size)
            store = Path(folder) / str(size)
            seconds[size], operator = cpu_seconds(
                lambda X=X, store=store: empirical_ntk(
                    net, X, X.y, n_components=2048, store=store, random_state=0
                )
            )
            yield (
                f"{size:,} samples, MLP, sketch of 2,048 into a store",
                f"{seconds[size]:.0f} s",
                "",
            )
        growth = seconds[n] / seconds[n // 10]
        yield "growth from a tenth to all", f"{growth:.1f} times", "11 times"
        evaluated, start = 0, time.process_time()
        for label in range(X.n_classes):
            members = np.flatnonzero(X.y == label)
            evaluated += row_extremes(operator.restricted(members).kernel).n_evaluated
        spent, pairs = time.process_time() - start, X.n_classes * len(members) ** 2
        yield (
            f"redundancy scores within {X.n_classes} classes of {len(members):,}",
            f"{evaluated:.3g} entries = {evaluated / pairs:.1%} of the classes' pairs, "
            f"{spent:.0f} s, {2 * 2048 * evaluated / spent / 1e9:.0f} GFLOP/s evaluated, "
            f"{2 * 2048 * pairs / spent / 1e9:.0f} GFLOP/s decided",
            "",
        )
        yield "peak memory", f"{peak.gigabytes:.2f} GB", "8 GB"


def run_resnet(options):
    n = 64 if options.quick else options.n_images
    with np.load(options.cifar) as file:
        X = torch.from_numpy(file["X_train"][:n]).permute(0, 3, 1, 2).float().div_(255)
        y = torch.from_numpy(file["y_train"][:n].astype(np.int64))
    torch.manual_seed(0)
    net = resnet18()
    epoch, _ = cpu_seconds(lambda: train(net, X, y, epochs=1, lr=0.01))
    yield f"ResNet-18, {n:,} CIFAR-10 images: a training epoch", f"{epoch:.0f} s", ""
    sketched, _ = cpu_seconds(
        lambda: empirical_ntk(net.eval(), X, y, n_components=4096, batch_size=32)
    )
    yield (
        f"ResNet-18, {n:,} CIFAR-10 images: sketch of 4,096",
        f"{sketched:.0f} s = {sketched / epoch:.2f} epochs",
        "1.5 epochs",
    )


def run_kills(options):
    """A store that is killed again and again, then finished, against one that was not."""
    kills = 3 if options.quick else 20
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        command = [sys.executable, __file__, "--fill"]
        undisturbed = Path(folder) / "undisturbed"
        start = time.monotonic()
        subprocess.run([*command, str(undisturbed)], check=True)
        whole, died = time.monotonic() - start, 0
        store = Path(folder) / "killed"
        for _ in range(kills):
            process = subprocess.Popen([*command, str(store)])
            time.sleep(rng.uniform(0.3, 0.9) * whole)
            process.send_signal(signal.SIGKILL)
            died += process.wait() == -signal.SIGKILL
            for file in sorted(store.rglob("*.shard"))[::3]:
                file.unlink()  # so that there is always work left to be killed in
        subprocess.run([*command, str(store)], check=True)
        files = [{p.name: p.read_bytes() for p in f.rglob("*.shard")} for f in (undisturbed, store)]
    same = files[0] == files[1]
    yield (
        f"a store killed {died} times at random moments, then finished",
        f"{'identical' if same else 'DIFFERENT'} to an undisturbed one ({len(files[0])} shards)",
        "identical",
    )


def fill(folder):
    torch.manual_seed(0)
    X = torch.rand(6000, 1, 28, 28)
    empirical_ntk(lenet5().eval(), X, torch.arange(6000) % 10, store=folder, batch_size=64)


EXPERIMENTS = {
    "mnist": run_mnist,
    "weak": run_weak,
    "sgemm": run_sgemm,
    "sketch": run_sketch,
    "million": run_million,
    "resnet": run_resnet,
    "kills": run_kills,
}


def keep(name, rows):
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(rows, indent=1))


def write_table():
    lines = [".. list-table::", "   :header-rows: 1", "", "   * - what", "     - measured"]
    lines.append("     - aim, at most or at least")
    for name in EXPERIMENTS:
        file = RESULTS / f"{name}.json"
        for row in json.loads(file.read_text()) if file.exists() else []:
            what, measured, aim = row
            lines += [f"   * - {what}", f"     - {measured}", f"     - {aim}".rstrip()]
    TABLE.write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", nargs="?", choices=[*EXPERIMENTS, "all", "table"])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cifar", type=Path)
    parser.add_argument("--n-images", type=int, default=10_000)
    parser.add_argument("--scratch", help="folder for stores")
    parser.add_argument("--fill", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.fill:
        fill(options.fill)
        return
    if options.experiment == "table":
        write_table()
        return
    chosen = EXPERIMENTS if options.experiment == "all" else [options.experiment]
    for name in chosen:
        if name == "resnet" and options.cifar is None:
            print("resnet is left out: it needs --cifar")
            continue
        rows = []
        for row in EXPERIMENTS[name](options):
            rows.append(row)
            print(" | ".join(row), flush=True)
            if not options.quick:
                keep(name, rows)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
