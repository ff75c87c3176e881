"""Kernel regression and look-ahead queries beside their peers in one run; CPU s, one thread.

``python benchmarks/bench_linearized.py`` (``pip install -e ".[bench]"`` for GPyTorch). Peers get
the same kernel matrix in double precision: `KernelRidge` of scikit-learn by its Cholesky solver,
GPyTorch's exact Gaussian process by Cholesky, and by conjugate gradients at its own tolerance.
``--large`` runs conjugate gradients at N = 20,000 and a sketch of 4,096 at N = 60,000 of MNIST.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from scipy.linalg import solve
from sklearn.kernel_ridge import KernelRidge

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.nets import lenet5
from sklearn_lpntk.active import lookahead_scores
from sklearn_lpntk.datasets import fetch_mnist_images
from sklearn_lpntk.kernels import pntk_kernel
from sklearn_lpntk.linearized import NTKClassifier


def timed(run, repeats=3):
    """The least CPU time of some runs, and the last result."""
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        found = run()
        best = min(best, time.process_time() - start)
    return best, found


def by_gpytorch(K, Y, alpha, cholesky):
    """Weights of an exact Gaussian process on a given kernel matrix."""
    import gpytorch
    from linear_operator import to_linear_operator

    A = torch.as_tensor(K) + alpha * float(np.trace(K)) / len(K) * torch.eye(len(K)).double()
    with gpytorch.settings.fast_computations(solves=not cholesky):
        return to_linear_operator(A).solve(torch.as_tensor(Y)).numpy()


def one_by_one(K_LL, K_UL, K_UU, residual, shift, labels, f):
    """The look-ahead score of every candidate by a solve of its own."""
    scores, L = [], len(K_LL)
    for j in range(len(K_UU)):
        A = np.empty((L + 1, L + 1))
        A[:L, :L], A[:L, L], A[L, :L], A[L, L] = K_LL, K_UL[j], K_UL[j], K_UU[j, j]
        A.flat[:: L + 2] += shift
        both = np.vstack([residual, labels[j] - f[j]])
        change = np.hstack([K_UL, K_UU[:, [j]]]) @ solve(A, both, assume_a="pos")
        scores.append(np.linalg.norm(change, axis=1).sum())
    return np.array(scores)


def small(data):
    X, y = data[0][:2000], data[1][:2000]
    torch.manual_seed(0)
    net, alpha, Y = lenet5(), 1e-3, np.eye(10)[y]
    lines = ["N = 2,000 images of MNIST, LeNet-5, 10 outputs"]
    given = NTKClassifier(net, alpha=alpha, offset="zero")
    seconds, model = timed(lambda: given.fit(X, y))
    lines.append(f"NTKClassifier, features and kernel included: {seconds:.2f} s")
    K = model.kernel_matrix(X)
    ours, _ = timed(lambda: NTKClassifier("precomputed", alpha=alpha, offset="zero").fit(K, y))
    lines.append(f"the solve with leave-one-out and GCV: {ours:.2f} s")
    ridge = KernelRidge(kernel="precomputed", alpha=alpha * np.trace(K) / len(K))
    peer, _ = timed(lambda: ridge.fit(K, Y))
    lines.append(f"  KernelRidge, the solve alone: {peer:.2f} s, {peer / ours:.1f} times ours")
    loo, _ = timed(
        lambda: [
            ridge.fit(np.delete(np.delete(K, i, 0), i, 1), np.delete(Y, i, 0)) for i in range(3)
        ],
        1,
    )
    lines.append(
        f"  KernelRidge, leave-one-out by deletion: {loo / 3 * len(K):,.0f} s (from 3 of them)"
    )
    ridge.fit(K, Y)
    for cholesky in (True, False):
        peer, dual = timed(lambda c=cholesky: by_gpytorch(K, Y, alpha, c))
        gap = np.abs(K @ dual - K @ ridge.dual_coef_).max()
        how = "Cholesky" if cholesky else "conjugate gradients"
        lines.append(
            f"  GPyTorch, the solve alone by {how}: {peer:.2f} s, {peer / ours:.1f} times ours; "
            f"predictions off by {gap:.1g}"
        )
    single, _ = timed(lambda: pntk_kernel(net, X))
    lines.append(f"the kernel matrix in single precision (pntk_kernel): {single:.2f} s")
    return lines + candidates(net, data)


def candidates(net, data):
    (X, y), n = data, 500
    L, pool = X[:n], X[n:]
    ours, scores = timed(lambda: lookahead_scores(net, L, y[:n], pool))
    K = NTKClassifier(net).fit(L, y[:n]).kernel_matrix(X)
    with torch.no_grad():
        f = net(torch.as_tensor(X)).double().numpy()
    labels, residual = np.eye(10)[f[n:].argmax(1)], np.eye(10)[y[:n]] - f[:n]
    shift = 1e-6 * np.trace(K[:n, :n]) / n
    blocks = K[:n, :n], K[n:, :n], K[n:, n:]
    peer, expected = timed(lambda: one_by_one(*blocks, residual, shift, labels, f[n:]), 1)
    gap = np.abs(scores / expected - 1).max()
    return [
        f"look-ahead scores of 1,500 candidates, 500 labels, features included: {ours:.2f} s",
        f"  a solve for each, features not included: {peer:.2f} s, {peer / ours:.0f} times ours; "
        f"scores off by {gap:.1g}",
    ]


def large(data, n_cg=20_000, n_sketch=60_000):
    X, y = data
    test = slice(n_sketch, n_sketch + 2000)
    torch.manual_seed(0)
    net = lenet5()
    lines = ["MNIST, LeNet-5 at its initial weights, alpha = 1e-3; accuracy on 2,000 others"]
    runs = (
        ("conjugate gradients", n_cg, {"solver": "cg"}),
        ("sketch of 4,096", n_sketch, {"n_components": 4096}),
    )
    for name, n, options in runs:
        start = time.process_time()
        model = NTKClassifier(net, random_state=0, **options).fit(X[:n], y[:n])
        seconds = time.process_time() - start
        steps = f", {model.n_iter_} iterations" if hasattr(model, "n_iter_") else ""
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        lines.append(
            f"{name}, N = {n:,}: {model.score(X[test], y[test]):.2%}, {seconds:.0f} s{steps}, "
            f"at most {memory:.2f} GiB so far"
        )
        print(lines[-1], flush=True)
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    X, y = fetch_mnist_images()
    rows = np.random.default_rng(0).permutation(len(X))[: 62_000 if options.large else 2000]
    data = X[rows], y[rows].astype(np.int64)
    del X
    print("\n".join((large if options.large else small)(data)))


if __name__ == "__main__":
    main()
