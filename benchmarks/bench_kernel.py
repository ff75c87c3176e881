"""Time and memory of the exact lpNTK matrix, against the usual ways to compute it.

Ratios of CPU time on one thread, peers alternating with ours in the same process, medians.
Run ``make bench``; ``--quick`` shrinks everything to see that it runs.
"""

import argparse
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from nets import lenet5, resnet18
from timing import alternate
from torch.func import functional_call, grad, vmap
from torch.utils.data import DataLoader, TensorDataset

from sklearn_lpntk._engine.check import SelfCheck
from sklearn_lpntk.kernels import empirical_ntk, lpntk_kernel

K = 10


def make_data(n, shape):
    torch.manual_seed(0)
    return torch.rand(n, *shape), torch.arange(n) % K


def signs(y):
    """s(y) / sqrt(K) of Eq. 3."""
    return (2 * torch.nn.functional.one_hot(y, K) - 1) / K**0.5


# -- the peers ----------------------------------------------------------------------------


def by_vmap(module, X, y, chunk=100):
    """Per-sample gradients by ``vmap(grad)``, then products in chunks of rows."""
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    buffers = dict(module.named_buffers())

    def scalar(parameters, x, s):
        return (functional_call(module, (parameters, buffers), (x[None],))[0] * s).sum()

    gradients = vmap(grad(scalar), (None, 0, 0))
    phi = []
    for rows in torch.arange(len(X)).split(chunk):
        parts = gradients(parameters, X[rows], signs(y[rows]))
        phi.append(torch.cat([part.flatten(1) for part in parts.values()], 1))
    phi = torch.cat(phi)
    return torch.cat([phi[rows] @ phi.T for rows in torch.arange(len(X)).split(chunk)]).numpy()


def by_nngeometry(module, X, y, batch=500):
    """nngeometry's Gram matrix of the one function s(y) . z / sqrt(K)."""
    from nngeometry import GramMatrix
    from nngeometry.object import FMatDense

    def function(x, labels):
        return (module(x) * signs(labels)).sum(1, keepdim=True)

    loader = DataLoader(TensorDataset(X.clone(), y), batch_size=batch)
    gram = GramMatrix(module, loader, function=function, representation=FMatDense)
    return gram.to_torch()[0, :, 0].detach().numpy()


# -- measuring ----------------------------------------------------------------------------


def compare(name, module, n, shape, peer, repeats):
    X, y = make_data(n, shape)
    calls = (lambda: lpntk_kernel(module, X, y), lambda: peer(module, X, y))
    ours, theirs = (call() for call in calls)
    error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    ours, theirs = alternate(repeats, *calls)
    print(
        f"| {name} | {theirs / ours:.1f} times faster | {ours:.2f} s against {theirs:.2f} s, "
        f"relative difference {error:.0e} |",
        flush=True,
    )


def peak_memory(n):
    """MiB that the matrix takes at most beyond its own n x n numbers, in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, "--memory", str(n)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
    )
    return float(done.stdout.splitlines()[-1])


def print_memory(n):
    X, y = make_data(n, (1, 28, 28))
    module = lenet5()
    lpntk_kernel(module, X[:300], y[:300])  # what torch allocates once for good
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here (Linux)
    before = memory_status("VmRSS")
    K = lpntk_kernel(module, X, y)
    print((memory_status("VmHWM") - before - K.nbytes) / 2**20)


def memory_status(field):
    """Bytes of a field of this process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def check_share(n):
    """Part of a whole run (features and matrix) that the self-check takes."""
    spent = [0.0]

    def timed(method):
        def wrapper(*args):
            start = time.process_time()
            try:
                return method(*args)
            finally:
                spent[0] += time.process_time() - start

        return wrapper

    originals = SelfCheck.before, SelfCheck.batch
    SelfCheck.before, SelfCheck.batch = (timed(method) for method in originals)
    try:
        X, y = make_data(n, (1, 28, 28))
        start = time.process_time()
        empirical_ntk(lenet5(), X, y).toarray()
        total = time.process_time() - start
    finally:
        SelfCheck.before, SelfCheck.batch = originals
    return spent[0] / total, spent[0], total


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        print_memory(options.memory)
        return
    n, m, big = (200, 8, 500) if options.quick else (4000, 128, 10_000)
    repeats = 1 if options.quick else options.repeats
    warnings.simplefilter("ignore")
    print("| what | measured | details |\n|---|---|---|", flush=True)
    case = f"LeNet-5, N = {n:,}, against "
    module = lenet5().eval()
    compare(case + "`vmap(grad)` + matmul", module, n, (1, 28, 28), by_vmap, repeats)
    compare(case + "nngeometry's `GramMatrix`", module, n, (1, 28, 28), by_nngeometry, repeats)
    module = resnet18().eval()

    def chunks_of_8(module, X, y):
        return by_vmap(module, X, y, chunk=8)

    case = f"ResNet-18, N = {m}, against `vmap(grad)` + matmul"
    compare(case, module, m, (3, 32, 32), chunks_of_8, repeats)
    print(f"| LeNet-5, N = {n:,}: peak memory beyond the matrix | {peak_memory(n):.0f} MiB | |")
    share, check, total = check_share(big)
    print(
        f"| self-check's share of a run over {big:,} samples | {share:.1%} | "
        f"{check:.2f} s of {total:.2f} s |"
    )


if __name__ == "__main__":
    main()
