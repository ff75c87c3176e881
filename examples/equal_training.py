"""
Equal training: by epochs or by steps
=====================================

After pruning, an epoch is shorter. A net that is retrained for as many *epochs* as on all samples
takes fewer steps, and may just not be trained to its end; for as many *steps*, the comparison is of
the samples alone. Both are asked for in practice: the first where training time is to be saved,
the second where it is to be known which samples are needed. Digits, a fifth kept, five splits,
beside random subsets of the same size. Run ``python examples/equal_training.py`` (half a minute).
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_lpntk import RedundancyPruner
from sklearn_lpntk.datasets import load_digit_images

STRATEGIES, BUDGETS = ("coverage", "random"), ("epochs", "steps")


def make_module():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def make_net(max_epochs=10):
    return NeuralNetClassifier(
        make_module,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        max_epochs=max_epochs,
        batch_size=64,
        train_split=None,
        iterator_train__shuffle=True,
        verbose=0,
    )


def accuracies(X, y, seeds, net=make_net):
    """Test accuracy in % by strategy and budget, and of all samples: dict of lists."""
    found = {}
    for seed in seeds:
        X_train, X_test, y_train, y_test = train_test_split(
            X, y, test_size=0.3, stratify=y, random_state=seed
        )
        torch.manual_seed(seed)
        trained = net().fit(X_train, y_train)
        found.setdefault("all samples", []).append(100 * trained.score(X_test, y_test))
        for strategy in STRATEGIES:
            for budget in BUDGETS:
                pruner = RedundancyPruner(
                    net=FrozenEstimator(trained),
                    strategy=strategy,
                    prune_fraction=0.8,
                    budget=budget,
                    random_state=seed,
                ).fit(X_train, y_train)
                score = 100 * pruner.score(X_test, y_test)
                found.setdefault(f"{strategy}, same {budget}", []).append(score)
    return found


def plot(found, path):
    """Means and standard deviations as bars."""
    figure, ax = plt.subplots(figsize=(5, 2.5), layout="constrained")
    means, spreads = zip(*((np.mean(v), np.std(v, ddof=1)) for v in found.values()))
    ax.barh(list(found), means, xerr=spreads, color="#0072B2")
    ax.set(xlabel="test accuracy (%)", title="A fifth of the digits kept")
    ax.invert_yaxis()
    figure.savefig(path, dpi=100)
    plt.close(figure)


# sphinx_gallery_thumbnail_path = "images/equal_training.png"
if __name__ == "__main__":
    torch.set_num_threads(1)
    found = accuracies(*load_digit_images(), seeds=range(5))
    for name, values in found.items():
        print(f"{name:24s} {np.mean(values):5.1f} ({np.std(values, ddof=1):.1f})")
    Path("artifacts").mkdir(exist_ok=True)
    plot(found, "artifacts/equal_training.png")
