"""
Which classes will be confused, before any training
===================================================

The kernel of an infinitely wide network ranks pairs of digits by how entangled their labels are. A
network that is trained afterwards confuses them in nearly that order. Run
``python examples/class_entanglement.py``; it writes a picture to ``artifacts/``.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_predict
from sklearn.neural_network import MLPClassifier

from sklearn_lpntk.infinite import InfiniteWidthNTK, class_entanglement, rank_biased_overlap
from sklearn_lpntk.inspection import LabelInteractionDisplay


def confusion(X, y, seed):
    """Mean probability of every other class, by class; rows of held-out predictions."""
    net = MLPClassifier(64, max_iter=60, early_stopping=False, random_state=seed)
    with np.errstate(all="ignore"):
        proba = cross_val_predict(net, X / 16, y, cv=3, method="predict_proba")
    table = np.array([proba[y == k].mean(axis=0) for k in range(10)])
    np.fill_diagonal(table, -1)
    return np.argsort(-table, axis=1)[:, :-1]


def overlap(a, b):
    """Mean rank-biased overlap of the rankings of all classes."""
    return np.mean([rank_biased_overlap(p, q) for p, q in zip(a, b, strict=True)])


def main(folder=Path("artifacts")):
    X, y = load_digits(return_X_y=True)
    found = class_entanglement(InfiniteWidthNTK()(X / 16), y)
    trained, other_seed = confusion(X, y, 0), confusion(X, y, 1)
    rng = np.random.default_rng(0)
    chance = [
        overlap(trained, [rng.permutation([d for d in range(10) if d != k]) for k in range(10)])
        for _ in range(200)
    ]
    print("rank-biased overlap with what a trained network confuses")
    print(f"this kernel, before training   {overlap(found.inter_rankings, trained):.3f}")
    print(f"the same network, other seed   {overlap(other_seed, trained):.3f}")
    print(f"random rankings                {np.mean(chance):.3f} ± {np.std(chance):.3f}")
    for k in (1, 3, 9):
        print(
            f"{k} is entangled with {found.inter_rankings[k, :3]}, confused with {trained[k, :3]}"
        )

    folder.mkdir(parents=True, exist_ok=True)
    display = LabelInteractionDisplay.from_estimator(InfiniteWidthNTK(), X / 16, y)
    path = folder / "class_entanglement.png"
    display.figure_.savefig(path, dpi=110)
    plt.close(display.figure_)
    print(f"Picture: {path}")
    return overlap(found.inter_rankings, trained), np.mean(chance)


if __name__ == "__main__":
    main()
