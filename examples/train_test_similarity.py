"""
What a prediction was learned from
==================================

For some test digits, the training digits that help their prediction most and hurt it most, by the
labelled kernel (lpNTK) and by the gradients of the loss, side by side.
Run ``python examples/train_test_similarity.py``; it writes two pictures to ``artifacts/``.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_lpntk.datasets import load_digit_images
from sklearn_lpntk.dynamics import train_test_similarity
from sklearn_lpntk.inspection import SamplePairsDisplay


def make_net():
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
    return NeuralNetClassifier(
        nn.Sequential(*layers),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.01,
        max_epochs=15,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )


def main(folder=Path("artifacts")):
    X, y = load_digit_images()
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    net = make_net().fit(X_train, y_train)
    found = train_test_similarity(net, X_train, y_train, X_test, y_test, normalize=True)
    print("share of partners with the test sample's label    most helpful   most harmful")
    for kernel, partners in found.items():
        same = [
            (y_train[partners[end]] == y_test[:, None]).mean() for end in ("helpful", "harmful")
        ]
        print(f"{kernel:<50}{same[0]:>12.0%}{same[1]:>15.0%}")
    for kernel, partners in found.items():
        for end in ("helpful", "harmful"):
            n_used = len(np.unique(partners[end]))
            print(f"{kernel}, {end}: {n_used} different training samples for {len(y_test)} tests")

    folder.mkdir(parents=True, exist_ok=True)
    tests = np.flatnonzero(net.predict(X_test) != y_test)[:8]  # what the net gets wrong
    for kernel, partners in found.items():
        display = SamplePairsDisplay.from_predictions(
            X_test,
            np.stack([tests, partners.harmful[tests, 0]], axis=1),
            X2=X_train,
            y=y_test,
            y2=y_train,
            rows=("test sample", "hurts it most"),
            title=f"Test digits that the net gets wrong, by {kernel}; labels above",
        )
        path = folder / f"train_test_{kernel}.png"
        display.figure_.savefig(path, dpi=110)
        plt.close(display.figure_)
        print(f"Picture: {path}")
    return found


# sphinx_gallery_thumbnail_path = "images/train_test_lpntk.png"
if __name__ == "__main__":
    main()
