"""
Which kernel leaks labels in front of a classifier
==================================================

Tangent features of a network, in front of a logistic regression. The labelled kernel's training
features contain the labels: the regression reads them off, is perfect on the training set, and
finds the network's guesses there at test time. The label-free kernel has nothing to read off.
Labels are noisy here, so that the difference shows. Run ``python examples/label_leak.py``.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from sklearn_lpntk import LpNTKTransformer


def main():
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    noisy = np.where(rng.random(len(y)) < 0.3, rng.integers(0, 10, len(y)), y)
    X_train, X_test, y_train, y_test = train_test_split(X, noisy, random_state=0)
    scores = {}
    print("30 % noisy labels     training accuracy   test accuracy")
    for kernel in ("lpntk", "pntk"):
        model = make_pipeline(
            LpNTKTransformer(kernel=kernel, n_components=512, random_state=0),
            Normalizer(),
            LogisticRegression(C=10.0, max_iter=1000),
        )
        # fit_transform sees the given labels; transform at test time can only guess them
        model.fit(X_train, y_train)
        features = model[1].transform(model[0].transform(X_train, y_train))
        scores[kernel] = model[-1].score(features, y_train), model.score(X_test, y_test)
        print(f"{kernel:<20}  {scores[kernel][0]:>17.1%}   {scores[kernel][1]:>13.1%}")
    return scores


def plot(scores, path):
    """Training and test accuracy of both kernels, side by side."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(5, 3), layout="constrained")
    for k, part in enumerate(("training", "test")):
        places = [i + 0.36 * k for i in range(len(scores))]
        ax.bar(places, [100 * pair[k] for pair in scores.values()], 0.34, label=part)
    ax.set_xticks([i + 0.18 for i in range(len(scores))], list(scores))
    ax.set(ylabel="accuracy (%)", title="The labelled kernel leaks labels")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    figure.savefig(path, dpi=100)
    plt.close(figure)


# sphinx_gallery_thumbnail_path = "images/label_leak.png"
if __name__ == "__main__":
    Path("artifacts").mkdir(exist_ok=True)
    plot(main(), "artifacts/label_leak.png")
