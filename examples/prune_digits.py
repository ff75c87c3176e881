"""
Prune the bundled digits
========================

A small convolutional net scores the training samples, a share of them is dropped inside a
scikit-learn Pipeline, and the net is trained again on the rest, for the same number of steps.
Run ``python examples/prune_digits.py``; it writes a table and two pictures.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from pruning_study import (
    accuracy_grid,
    make_net,
    plot_curves,
    plot_relations,
    print_table,
    relation_examples,
)
from sklearn.model_selection import StratifiedShuffleSplit

from sklearn_lpntk.datasets import load_digit_images

FRACTIONS = (0.2, 0.5, 0.8, 0.9, 0.95)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[2])
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default 3)")
    parser.add_argument("--out", type=Path, default=Path("artifacts"), help="folder of the output")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # the grid runs two fits at once

    X, y = load_digit_images()
    splitter = StratifiedShuffleSplit(n_splits=options.seeds, test_size=0.3, random_state=0)
    splits = list(splitter.split(X[:, 0, 0], y))
    net = make_net(8, 8, n_steps=20, max_epochs=20)
    with tempfile.TemporaryDirectory() as cache:
        accuracy = accuracy_grid(net, X, y, splits, FRACTIONS, cache=cache, n_jobs=2)
        print_table(accuracy, FRACTIONS, len(splits[0][0]))
        plot_curves(
            accuracy,
            FRACTIONS,
            f"Digits: accuracy after pruning, {options.seeds} seeds",
            options.out / "digits_curves.png",
        )
        train = splits[0][0]
        found = relation_examples(net, X[train], y[train], cache=cache)
        plot_relations(X[train], y[train], *found, options.out / "digits_relations.png")
    pruner = found[0]
    share = pruner.n_redundant_ / len(train)
    print(f"\nThe paper's rule ρ > 1 calls {share:.0%} of the {len(train)} samples redundant.")
    print(f"Pictures: {options.out}/digits_curves.png, {options.out}/digits_relations.png")


if __name__ == "__main__":
    main()
