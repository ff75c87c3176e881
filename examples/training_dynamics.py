"""
What training does to single samples
====================================

A small net learns the digits while every sample is followed: which are hard, which are forgotten,
and whether the next step's effect can be told before it is taken.
Run ``python examples/training_dynamics.py``; it writes ``artifacts/training_dynamics.png``.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_lpntk.datasets import load_digit_images
from sklearn_lpntk.dynamics import TrainingDynamics, predict_forgetting, predict_update
from sklearn_lpntk.inspection import DifficultyDisplay, ForgettingDisplay


def make_net():
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
    return NeuralNetClassifier(
        nn.Sequential(*layers),
        criterion=nn.CrossEntropyLoss,
        lr=0.2,
        max_epochs=15,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        callbacks=[TrainingDynamics()],
    )


def main(folder=Path("artifacts")):
    X, y = load_digit_images()
    rng = np.random.default_rng(0)
    wrong = rng.random(len(y)) < 0.05
    labels = np.where(wrong, (y + rng.integers(1, 10, len(y))) % 10, y)
    net = make_net().fit(X, labels)
    recorded = dict(net.callbacks_)["TrainingDynamics"]
    print("5 % of the labels are wrong.      right labels   wrong labels")
    for name, values in (
        ("difficulty (nats x epochs)", recorded.difficulty_),
        ("forgetting events", recorded.forgetting_counts_),
        ("never learned", recorded.never_learned_),
    ):
        print(f"mean {name:<26}{values[~wrong].mean():>14.2f}{values[wrong].mean():>15.2f}")

    step = predict_update(net, X[:128], labels[:128], X[128:], learning_rate=0.01)
    gain = step.delta_log_proba[np.arange(len(X) - 128), labels[128:]]
    print(f"\nA step on 128 samples would help {(gain > 0).mean():.0%} of the others.")
    found = predict_forgetting(
        net, X, labels, learning_rate=0.005, n_iterations=400, batch_size=128, random_state=0
    )
    print(
        f"Of {found.actual.sum()} forgetting events in 400 steps {found.recall:.0%} were foreseen; "
        f"{found.precision:.0%} of what was foreseen happened."
    )

    folder.mkdir(parents=True, exist_ok=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    kinds = np.where(wrong, "wrong label", "right label")
    DifficultyDisplay.from_predictions(
        recorded.difficulty_, recorded.el2n_, y=kinds, names=("loss", "EL2N"), ax=left
    )
    left.set(ylabel="mean norm of the error vector", title="Hard samples, by two measures")
    ForgettingDisplay.from_estimator(net, ax=right)
    path = folder / "training_dynamics.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print(f"Picture: {path}")
    return recorded, found


# sphinx_gallery_thumbnail_path = "images/training_dynamics.png"
if __name__ == "__main__":
    main()
