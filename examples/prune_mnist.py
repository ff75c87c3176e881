"""
Prune MNIST
===========

The digits example on MNIST: a part of the training set is pruned by every strategy, the net is
trained again on the rest for the same number of steps, and scored on the 10,000 test images.
Run ``python examples/prune_mnist.py``; MNIST is downloaded from OpenML at the first run.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from pruning_study import (
    accuracy_grid,
    make_net,
    plot_curves,
    plot_relations,
    print_table,
    relation_examples,
)

from sklearn_lpntk.datasets import fetch_mnist_images

FRACTIONS = (0.5, 0.8, 0.9, 0.95, 0.98)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[2])
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default 3)")
    parser.add_argument("--n-train", type=int, default=5000, help="training samples (default 5000)")
    parser.add_argument("--out", type=Path, default=Path("artifacts"), help="folder of the output")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # the grid runs two fits at once

    X, y = fetch_mnist_images()
    test = np.arange(60_000, 70_000)
    splits = [
        (np.random.default_rng(seed).permutation(60_000)[: options.n_train], test)
        for seed in range(options.seeds)
    ]
    net = make_net(8, 28, n_steps=50, max_epochs=12)
    with tempfile.TemporaryDirectory() as cache:
        accuracy = accuracy_grid(net, X, y, splits, FRACTIONS, cache=cache, n_jobs=2)
        print_table(accuracy, FRACTIONS, options.n_train)
        plot_curves(
            accuracy,
            FRACTIONS,
            f"MNIST, {options.n_train} samples: accuracy after pruning, {options.seeds} seeds",
            options.out / "mnist_curves.png",
        )
        train = splits[0][0]
        found = relation_examples(net, X[train], y[train], cache=cache)
        plot_relations(X[train], y[train], *found, options.out / "mnist_relations.png")
    share = found[0].n_redundant_ / options.n_train
    print(f"\nThe paper's rule ρ > 1 calls {share:.0%} of the samples redundant.")
    print(f"Pictures: {options.out}/mnist_curves.png, {options.out}/mnist_relations.png")


if __name__ == "__main__":
    main()
