"""
Prune the bundled digits
========================

A small convolutional net scores the training samples, a share of them is dropped inside a
scikit-learn Pipeline, and the net is trained again on the rest, for the same number of steps.
Run ``python examples/prune_digits.py``; it writes a table and two pictures.
"""

from pruning_study import make_net, options_of, run_study
from sklearn.model_selection import StratifiedShuffleSplit

from sklearn_lpntk.datasets import load_digit_images

FRACTIONS = (0.2, 0.5, 0.8, 0.9, 0.95)


def main():
    options = options_of("Prune the bundled digits")
    X, y = load_digit_images()
    splitter = StratifiedShuffleSplit(n_splits=options.seeds, test_size=0.3, random_state=0)
    splits = list(splitter.split(X[:, 0, 0], y))
    net = make_net(8, 8, n_steps=20, max_epochs=20)
    title = "Digits: accuracy after pruning"
    run_study(
        "digits", title, net, X, y, splits, FRACTIONS, options.out, minutes=0.6 * options.seeds
    )


# sphinx_gallery_thumbnail_path = "images/digits_curves.png"
if __name__ == "__main__":
    main()
