"""
Prune MNIST
===========

The digits example on MNIST: a part of the training set is pruned by every strategy, the net is
trained again on the rest for the same number of steps, and scored on the 10,000 test images.
Run ``python examples/prune_mnist.py``; MNIST is downloaded from OpenML at the first run.
"""

import numpy as np
from pruning_study import make_net, options_of, run_study

from sklearn_lpntk.datasets import fetch_mnist_images

FRACTIONS = (0.5, 0.8, 0.9, 0.95, 0.98)


def main():
    options = options_of("Prune MNIST", n_train=5000)
    X, y = fetch_mnist_images()
    test = np.arange(60_000, 70_000)
    splits = [
        (np.random.default_rng(seed).permutation(60_000)[: options.n_train], test)
        for seed in range(options.seeds)
    ]
    net = make_net(8, 28, n_steps=50, max_epochs=12)
    title = f"MNIST, {options.n_train} samples: accuracy after pruning"
    minutes = 2 * options.seeds
    run_study("mnist", title, net, X, y, splits, FRACTIONS, options.out, minutes=minutes)


# sphinx_gallery_thumbnail_path = "images/mnist_curves.png"
if __name__ == "__main__":
    main()
