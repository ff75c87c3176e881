"""
Find wrong labels before any training
=====================================

A fifth of the labels of the digits are wrong. A kernel of an infinitely wide network, which needs
no training, says which. Run ``python examples/wrong_labels.py``; it writes two pictures to
``artifacts/``.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

from sklearn_lpntk.infinite import LabelRefurbisher, RefurbishedClassifier
from sklearn_lpntk.inspection import ErrorPathDisplay, FlippedLabelsDisplay


def main(folder=Path("artifacts"), noise=0.2):
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, random_state=0)
    rng = np.random.default_rng(0)
    wrong = rng.random(len(y)) < noise
    noisy = np.where(wrong, (y + rng.integers(1, 10, len(y))) % 10, y)

    refurbisher = LabelRefurbisher().fit(X, noisy)
    found = np.isin(np.arange(len(y)), refurbisher.flips_["index"])
    right = refurbisher.labels_ == y
    print(f"labels that are right   {(noisy == y).mean():.1%} before, {right.mean():.1%} after")
    print(f"wrong labels restored   {right[wrong].mean():.1%}")
    print(f"right labels harmed     {(~right[~wrong]).mean():.1%}")
    print(f"flips on wrong labels   {wrong[found].mean():.1%} of {found.sum()}")

    plain = SVC(C=10).fit(X, noisy).score(X_test, y_test)
    repaired = RefurbishedClassifier(SVC(C=10)).fit(X, noisy).score(X_test, y_test)
    clean = SVC(C=10).fit(X, y).score(X_test, y_test)
    print(f"test accuracy of an SVC {plain:.1%}; repaired {repaired:.1%}; clean {clean:.1%}")

    folder.mkdir(parents=True, exist_ok=True)
    for name, display in (
        ("flips", FlippedLabelsDisplay.from_estimator(refurbisher, X, image_shape=(8, 8))),
        ("error", ErrorPathDisplay.from_estimator(refurbisher)),
    ):
        path = folder / f"wrong_labels_{name}.png"
        display.figure_.savefig(path, dpi=110)
        plt.close(display.figure_)
        print(f"Picture: {path}")
    return right.mean(), plain, repaired


if __name__ == "__main__":
    main()
