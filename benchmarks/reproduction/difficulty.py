"""Figure 1: the difficulty of samples in small sets is less and less that in the whole set.

Five hundred images of each of MNIST's first four classes, a three-layer MLP, full-batch gradient
descent; one line of raw numbers a seed. For reference the whole set once more from other initial
weights: as much as two difficulties can agree.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import pearsonr
from torch import nn

from sklearn_lpntk.dynamics import difficulty_correlation

from .data import load
from .records import FOLDER, Records, seeds_of
from .report import save_figure, write_row
from .training import device

SIZES = (1, 5, 10, 40, 200, 1000)


def mlp(seed, width):
    torch.manual_seed(seed)
    layers = nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
    return nn.Sequential(*layers, nn.Linear(width, 4)).to(device())


def run(X, y, records, options):
    """One row of raw numbers for each seed that has none yet."""
    for seed in seeds_of(options):
        key = {"seed": seed, "n_epochs": options.epochs, "width": options.width}
        if key in records:
            continue
        rng = np.random.default_rng(seed)
        rows = [rng.permutation(np.flatnonzero(y == c))[: options.per_class] for c in range(4)]
        rows = np.concatenate(rows)
        training = {"n_epochs": options.epochs, "learning_rate": options.lr}
        first, second = (
            difficulty_correlation(
                mlp(start, options.width),
                X[rows],
                y[rows],
                subset_sizes=sizes,
                random_state=seed,
                **training,
            )
            for start, sizes in ((seed, SIZES), (1000 + seed, (len(rows),)))
        )
        reference = pearsonr(first.difficulty, second.difficulty).statistic
        records.append(
            key
            | {"sizes": SIZES, "correlation": first.correlation.tolist(), "reference": reference}
            | {"difficulty": first.difficulty.round(4).tolist() if seed == 0 else None}
            | {
                "subset_difficulty": first.subset_difficulty.round(4).tolist()
                if seed == 0
                else None
            }
        )


def draw(rows, name):
    """The six panels of the first seed, and the correlations of all of them."""
    figure, axes = plt.subplots(2, 4, figsize=(12, 6), layout="constrained")
    panels = [*axes[0, :3], *axes[1, :3]]
    first = rows[0]
    for ax, size, own, rho in zip(
        panels, SIZES, first["subset_difficulty"], first["correlation"], strict=True
    ):
        ax.scatter(first["difficulty"], own, s=3, color="#0072B2", alpha=0.4, lw=0)
        ax.set(title=f"2000 vs {size}, ρ = {rho:.2f}")
    figure.supxlabel("difficulty among 2,000 samples (nats × epochs)", fontsize="medium")
    axes[0, 0].set_ylabel("difficulty in the subset")
    axes[1, 0].set_ylabel("difficulty in the subset")
    merged = figure.add_subplot(axes[0, 3].get_gridspec()[:, 3])
    for ax in axes[:, 3]:
        ax.remove()
    for row in rows:
        merged.plot(SIZES, row["correlation"], "o-", color="#0072B2", alpha=0.5)
    reference = np.mean([row["reference"] for row in rows])
    merged.axhline(reference, color="0.4", ls="--", label="whole set, other initial weights")
    merged.set(
        xscale="log", xlabel="samples in a subset", ylabel="correlation ρ", ylim=(-0.2, 1.05)
    )
    merged.set_title(f"{len(rows)} seeds")
    merged.legend(loc="lower right", fontsize="small")
    save_figure(figure, name)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--per-class", type=int, default=500)
    parser.add_argument("--out", help="file of the raw numbers; then no page is written")
    parser.add_argument("--report", action="store_true", help="run nothing, only write the page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    records = Records(options.out or FOLDER / "difficulty.jsonl", ("seed", "n_epochs", "width"))
    if not options.report:
        run(*load("mnist")[:2], records, options)
    table = np.array([row["correlation"] for row in records.rows])
    rising = int((np.diff(table, axis=1) > 0).all(axis=1).sum())
    for size, column in zip(SIZES, table.T, strict=True):
        print(f"{size:>5}  {column.mean():.3f}  ({column.min():.3f} to {column.max():.3f})")
    print(f"rising with the size in {rising} of {len(table)} seeds")
    if options.out:
        return
    draw(records.rows, "difficulty")
    means = ", ".join(f"{size}: {c.mean():.2f}" for size, c in zip(SIZES, table.T, strict=True))
    reference = np.mean([row["reference"] for row in records.rows])
    write_row(
        "difficulty",
        claim="Figure 1: difficulty in subsets is the less correlated with that among 2,000 "
        "samples, the smaller they are",
        paper="correlations fall with the size (values in a figure only)",
        here=f"mean ρ by size {means}; rising in {rising} of {len(table)} seeds; whole set from "
        f"other initial weights: {reference:.2f}",
        verdict="reproduced" if rising == len(table) else f"in {rising} of {len(table)} seeds",
    )


if __name__ == "__main__":
    main()
