"""Time and memory of the exact kernels, against the usual ways to compute them at their best.

Ratios of CPU time on one thread, peers alternating with ours in the same process, medians. A peer
takes the chunk that a search finds fastest, and one product over the upper triangle. Every row
is measured with the self-check and without it; "passes" are those of a training epoch, forward
and backward without an optimizer's step, that the features alone take with the check.
Run ``make bench``; ``--rows`` picks some, ``--quick`` shrinks everything to see that it runs.
"""

import argparse
import itertools
import subprocess
import sys
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nets
import numpy as np
import torch
from timing import alternate, seconds_of
from torch.func import functional_call, grad, jacrev, vmap
from torch.utils.data import DataLoader, TensorDataset

from sklearn_lpntk._engine.check import SelfCheck
from sklearn_lpntk._features import extract, make_extractor
from sklearn_lpntk._skorch.networks import Network
from sklearn_lpntk.kernels import empirical_ntk, entk_kernel, lpntk_kernel

K = 10
CHUNKS = 4, 16, 64, 256
HERE = Path(__file__).parent


def make_data(n, shape):
    torch.manual_seed(0)
    return torch.rand(n, *shape), torch.arange(n) % K


def signs(y):
    """s(y) / sqrt(K) of Eq. 3."""
    return (2 * torch.nn.functional.one_hot(y, K) - 1) / K**0.5


# -- the peers ----------------------------------------------------------------------------


def gram(phi, step=1000):
    """``phi @ phi.T``, each pair once."""
    n = len(phi)
    out = phi.new_empty(n, n)
    for i, j in itertools.combinations_with_replacement(range(0, n, step), 2):
        rows, cols = slice(i, i + step), slice(j, j + step)
        out[rows, cols] = phi[rows] @ phi[cols].T
        if i < j:
            out[cols, rows] = out[rows, cols].T
    return out.numpy()


def by_vmap(chunk):
    """Per-sample gradients by ``vmap(grad)``, so many samples at a time."""

    def kernel(module, X, y):
        parameters = {name: p.detach() for name, p in module.named_parameters()}
        buffers = dict(module.named_buffers())

        def scalar(parameters, x, s):
            return (functional_call(module, (parameters, buffers), (x[None],))[0] * s).sum()

        gradients = vmap(grad(scalar), (None, 0, 0))
        phi = torch.empty(len(X), sum(p.numel() for p in parameters.values()))
        for rows in torch.arange(len(X)).split(chunk):
            parts = gradients(parameters, X[rows], signs(y[rows]))
            torch.cat(
                [part.flatten(1) for part in parts.values()], 1, out=phi[rows[0] : rows[-1] + 1]
            )
        return gram(phi)

    return kernel


def by_loop(module, X, y):
    """One backward pass a sample."""
    parameters = list(module.parameters())
    phi = torch.empty(len(X), sum(p.numel() for p in parameters))
    for x, s, row in zip(X, signs(y), phi):
        found = torch.autograd.grad((module(x[None])[0] * s).sum(), parameters)
        torch.cat([g.flatten() for g in found], out=row)
    return gram(phi)


def by_nngeometry(module, X, y, batch=500):
    """nngeometry's Gram matrix of the one function s(y) . z / sqrt(K)."""
    from nngeometry import GramMatrix
    from nngeometry.object import FMatDense

    def function(x, labels):
        return (module(x) * signs(labels)).sum(1, keepdim=True)

    loader = DataLoader(TensorDataset(X.clone(), y), batch_size=batch)
    found = GramMatrix(module, loader, function=function, representation=FMatDense)
    return found.to_torch()[0, :, 0].detach().numpy()


def by_jacrev(module, X, y):
    """All logits' Jacobians at once, and their products parameter by parameter."""
    parameters = {name: p.detach() for name, p in module.named_parameters()}

    def logits(parameters, x):
        return functional_call(module, parameters, (x[None],))[0]

    jacobians = vmap(jacrev(logits), (None, 0))(parameters, X)
    n, out = len(X), 0
    for j in jacobians.values():
        j = j.flatten(2).flatten(0, 1)
        out = out + j @ j.T
    return out.unflatten(0, (n, -1)).unflatten(2, (n, -1)).transpose(1, 2).contiguous().numpy()


def best_vmap(module, X, y):
    """`by_vmap` with the fastest chunk: larger ones are tried until they are slower."""
    best, least = None, np.inf
    for chunk in (c for c in CHUNKS if c <= len(X)):
        kernel, n = by_vmap(chunk), min(len(X), max(32, chunk))
        kernel(module, X[:chunk], y[:chunk])  # what is set up once
        seconds = seconds_of(partial(kernel, module, X[:n], y[:n])) / n
        if seconds > 1.2 * least:
            break
        if seconds < least:
            best, least = kernel, seconds
    return best


@dataclass
class Row:
    """One network, its samples, and the peers to beat."""

    title: str
    make: object
    n: int
    shape: tuple
    peers: dict
    kernel: object = lpntk_kernel


VMAP = {"`vmap(grad)`": best_vmap}
LOOP = {"a plain loop": lambda *_: by_loop}
NNGEOMETRY = {"nngeometry": lambda *_: by_nngeometry}
GREY, COLOUR = (1, 28, 28), (3, 32, 32)


def full_kernel(module, X, y):
    return entk_kernel(module, X)


ROWS = {
    "lenet": Row("LeNet-5", nets.lenet5, 4000, GREY, VMAP | NNGEOMETRY),
    "mlp300": Row("MLP 784-1024-1024-10", nets.mlp, 300, (784,), VMAP | NNGEOMETRY),
    "mlp3000": Row("MLP 784-1024-1024-10", nets.mlp, 3000, (784,), NNGEOMETRY),
    "resnet": Row("ResNet-18", nets.resnet18, 128, COLOUR, VMAP),
    "convnet": Row("ConvNet 3x3", nets.convnet, 256, COLOUR, VMAP),
    "mobilenet": Row("MobileNet-like", nets.mobilenet, 128, COLOUR, VMAP),
    "conv1d": Row("1-D ConvNet", nets.conv1d, 500, (8, 128), VMAP),
    "vit128": Row("vision transformer", nets.vit, 128, COLOUR, VMAP),
    "vit512": Row("vision transformer", nets.vit, 512, COLOUR, VMAP),
    "linear": Row("vision transformer of `nn.Linear`", nets.vit_of_linear, 256, COLOUR, VMAP),
    "lstm": Row("LSTM", nets.lstm, 256, (28, 28), LOOP | VMAP),
    "gru": Row("GRU", nets.gru, 256, (28, 28), LOOP),  # vmap fails on it
    "entk": Row(
        "full eNTK, MLP 784-128-128-1000",
        lambda: nets.mlp(1000, 128),
        2,
        (784,),
        {"`vmap(jacrev)`": lambda *_: by_jacrev},
        full_kernel,
    ),
}  # fmt: skip


# -- measuring ----------------------------------------------------------------------------


@contextmanager
def without_check():
    originals = SelfCheck.before, SelfCheck.batch
    SelfCheck.before = SelfCheck.batch = lambda *args: None
    try:
        yield
    finally:
        SelfCheck.before, SelfCheck.batch = originals


def unchecked(function):
    def call():
        with without_check():
            return function()

    return call


def training_pass(module, X, y, batch=128):
    """A forward and a backward pass over the samples, as an epoch has them."""
    for rows in torch.arange(len(X)).split(batch):
        loss = torch.nn.functional.cross_entropy(module(X[rows]), y[rows])
        torch.autograd.grad(loss, list(module.parameters()))


def measure(row, n, repeats):
    """Print the row: ratios with the check and without it, seconds, passes, difference."""
    module, (X, y) = row.make().eval(), make_data(n, row.shape)
    torch.backends.mha.set_fastpath_enabled(False)  # the peers need gradients
    ours = partial(row.kernel, module, X, y)
    extractor = make_extractor(Network(module), kernel="lpntk")
    features, epoch = partial(extract, extractor, X, y), partial(training_pass, module, X, y)
    passes = np.divide(*alternate(repeats, features, epoch))
    for name, find in row.peers.items():
        peer = find(module, X, y)
        theirs = partial(peer, module, X, y)
        expected = theirs()
        error = np.linalg.norm(ours() - expected) / np.linalg.norm(expected)
        on, off, other = alternate(repeats, ours, unchecked(ours), theirs)
        print(
            f"| {row.title}, N = {n:,} | {name} | {other / on:.2g} | {other / off:.2g} | "
            f"{on:.2f} s against {other:.2f} s | {passes:.2g} | {error:.0e} |",
            flush=True,
        )


def peak_memory(n):
    """MiB that the matrix takes at most beyond its own n x n numbers, in a fresh process."""
    return float(in_fresh_process("--memory", n).splitlines()[-1])


def in_fresh_process(option, n):
    command = [sys.executable, __file__, option, str(n)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE).stdout


def print_memory(n):
    X, y = make_data(n, GREY)
    module = nets.lenet5()
    lpntk_kernel(module, X[:300], y[:300])  # what torch allocates once for good
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here (Linux)
    before = memory_status("VmRSS")
    K = lpntk_kernel(module, X, y)
    print((memory_status("VmHWM") - before - K.nbytes) / 2**20)


def memory_status(field):
    """Bytes of a field of this process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def first_kernel():
    """CPU seconds of the first kernel of 64 samples in a fresh process, beyond ``import torch``."""
    script = """
import time, torch
start = time.process_time()
from sklearn_lpntk.kernels import lpntk_kernel
net = torch.nn.Sequential(torch.nn.Linear(784, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
lpntk_kernel(net, torch.rand(64, 784), torch.arange(64) % 10)
print(time.process_time() - start)
"""
    command = [sys.executable, "-c", script]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def check_share(n, repeats):
    """Part of a whole run (features and matrix) that the self-check takes."""
    module, (X, y) = nets.lenet5(), make_data(n, GREY)

    def run():
        empirical_ntk(module, X, y).toarray()

    on, off = alternate(repeats, run, unchecked(run))
    return (on - off) / on, on


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS))
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        print_memory(options.memory)
        return
    repeats = 1 if options.quick else options.repeats
    warnings.simplefilter("ignore")
    print("| network | peer | times faster | without check | CPU time | passes | difference |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in options.rows:
        row = ROWS[name]
        measure(row, min(row.n, 8) if options.quick else row.n, repeats)
    if len(options.rows) == len(ROWS):
        n, big = (200, 500) if options.quick else (4000, 10_000)
        share, total = check_share(big, repeats)
        print(f"\nLeNet-5, N = {n:,}: peak memory beyond the matrix {peak_memory(n):.0f} MiB")
        print(f"LeNet-5, N = {big:,}: self-check {share:.1%} of {total:.2f} s")
        print(f"first kernel of a process, beyond import torch: {first_kernel():.2f} s")


if __name__ == "__main__":
    main()
