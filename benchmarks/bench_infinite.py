"""What a kernel of infinite width costs in matrix products, and repaired labels in factorisations.

Ratios of CPU time on one thread, both sides alternating in the same process, medians. Run
``make bench-infinite``; ``--quick`` shrinks everything to see that it runs.
"""

import warnings

import numpy as np
import torch
from scipy.linalg.lapack import dpotrf, dpotri
from timing import alternate, arguments

from sklearn_lpntk.infinite import InfiniteWidthConvNTK, InfiniteWidthNTK, LabelRefurbisher

N_FEATURES = 784


def row(what, measured, seconds):
    print(f"| {what} | {measured} | {seconds} |", flush=True)


def kernels(n, repeats):
    """Symmetric Gram matrices in float32, in products of the samples with themselves."""
    X = np.random.default_rng(0).random((n, N_FEATURES), dtype=np.float32)
    rows = torch.as_tensor(X)
    shallow, deep = (InfiniteWidthNTK(depth, dtype="float32") for depth in (2, 10))
    product, whole, half, tall = alternate(
        repeats,
        lambda: rows @ rows.T,
        lambda: shallow(X),
        lambda: shallow(X[: n // 2]),
        lambda: deep(X),
    )
    size = f"N = {n:,}, {N_FEATURES} features, float32"
    row(f"depth 2, {size}", f"{whole / product:.2f} matmuls", f"{whole:.2f} s")
    row(f"depth 10, {size}", f"{tall / product:.2f} matmuls", f"{tall:.2f} s")
    row(f"depth 2, from N = {n // 2:,} to {n:,}", f"{whole / half:.2f} times", f"{half:.2f} s")


def convolutional(n, repeats):
    """Two convolutions, flattened: a product for each position."""
    X = np.random.default_rng(0).random((n, N_FEATURES), dtype=np.float32)
    conv = InfiniteWidthConvNTK(image_shape=(1, 28, 28), dtype="float32")
    (seconds,) = alternate(repeats, lambda: conv(X))
    rate = n * (n + 1) / 2 / seconds
    row(
        f"two convolutions of 28 × 28, N = {n:,}", f"{rate:,.0f} pairs a second", f"{seconds:.2f} s"
    )


def mixture(n, share):
    """The Gram matrix of ten classes that can be learned, and labels of which a share is wrong."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 10
    X = rng.normal(size=(10, N_FEATURES))[y] + 4 * rng.normal(size=(n, N_FEATURES))
    noisy = y.copy()
    wrong = rng.permutation(n)[: round(share * n)]
    noisy[wrong] = (y[wrong] + rng.integers(1, 10, len(wrong))) % 10
    return InfiniteWidthNTK()(X), y, noisy


def inverse(H, ridge=0.01):
    """The factorisation that a repair needs, and the inverse by it, by LAPACK alone."""
    A = np.array(H, order="F")
    A.flat[:: len(H) + 1] += ridge * np.trace(H) / len(H)
    return dpotri(dpotrf(A, lower=1, overwrite_a=1)[0], lower=1, overwrite_c=1)[0]


def refurbishment(n, share, repeats):
    """A whole fit to a given Gram matrix: checks, inverse, flips, errors, second decision."""
    H, y, noisy = mixture(n, share)
    refurbisher = LabelRefurbisher("precomputed")
    ours, least = alternate(repeats, lambda: refurbisher.fit(H, noisy), lambda: inverse(H))
    n_changes = len(refurbisher.error_path_) - 1
    row(
        f"repairing N = {n:,} labels, {share:.0%} wrong, {n_changes:,} changes, "
        f"{(refurbisher.labels_ == y).mean():.1%} right afterwards",
        f"{ours / least:.2f} times the inverse",
        f"{ours:.2f} s against {least:.2f} s",
    )


def main():
    options = arguments(__doc__)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", ".*labels were changed")
    repeats = options.repeats
    print("| what | measured | CPU time |\n|---|---|---|", flush=True)
    kernels(400 if options.quick else 10_000, repeats)
    convolutional(20 if options.quick else 400, repeats)
    for share in (0.1, 0.2, 0.3, 0.7):
        refurbishment(200 if options.quick else 2000, share, repeats)


if __name__ == "__main__":
    main()
