"""What the two pruning examples share: the nets, the grid, the table and the pictures."""

import argparse
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch import NeuralNetClassifier
from torch import nn
from torch.utils.data import DataLoader, RandomSampler

from sklearn_lpntk import RedundancyPruner
from sklearn_lpntk.inspection import PruningCurveDisplay, SamplePairsDisplay

BATCH_SIZE = 64

STRATEGIES = "herding", "coverage", "redundant", "random", "el2n", "k_center"


def small_conv_net(width, size, n_classes=10):
    """A LeNet in miniature for square one-channel images."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * (size // 4) ** 2, 64),
        nn.ReLU(),
        nn.Linear(64, n_classes),
    )


def equal_steps_loader(dataset, n_steps=20, **kwargs):
    """A loader that makes ``n_steps`` batches an epoch however many samples were kept.

    Without it a pruned set would also be trained for fewer steps, and the comparison would
    be between amounts of training.
    """
    size = kwargs["batch_size"]
    kwargs.pop("shuffle", None)
    sampler = RandomSampler(dataset, num_samples=n_steps * size)
    return DataLoader(dataset, sampler=sampler, **kwargs)


def make_net(width, size, *, n_steps, max_epochs):
    """The skorch net that scores the samples and is retrained on those kept."""
    return NeuralNetClassifier(
        small_conv_net,
        module__width=width,
        module__size=size,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=5e-3,
        batch_size=BATCH_SIZE,
        max_epochs=max_epochs,
        iterator_train=equal_steps_loader,
        iterator_train__n_steps=n_steps,
        train_split=None,
        verbose=0,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )


def accuracy_grid(net, X, y, splits, fractions, *, cache, n_jobs=None):
    """Test accuracy of every strategy and fraction, one grid search a seed.

    Parameters
    ----------
    splits : list of (train, test) index arrays
        One for each seed.

    Returns
    -------
    accuracy : dict of (strategy, fraction) -> list of float, one for each seed
    """
    accuracy = {}
    for seed, split in enumerate(splits):
        pipeline = Pipeline(
            [
                ("centre", FunctionTransformer(centred)),
                ("prune", RedundancyPruner(net=net, memory=cache, random_state=seed)),
            ]
        )
        grid = [
            {"prune__strategy": ["random"], "prune__prune_fraction": [0.0]},
            {"prune__strategy": list(STRATEGIES), "prune__prune_fraction": list(fractions)},
        ]
        search = GridSearchCV(pipeline, grid, cv=[split], refit=False, n_jobs=n_jobs)
        results = search.fit(X, y).cv_results_
        for params, score in zip(results["params"], results["mean_test_score"], strict=True):
            key = params["prune__strategy"], params["prune__prune_fraction"]
            accuracy.setdefault(key, []).append(score)
    return accuracy


def centred(X):
    """Pixels around zero; a function with a name, so that workers can load it."""
    return X - np.float32(0.5)


def spread(values, axis=None):
    """Standard deviation over seeds; of a single one there is none."""
    values = np.asarray(values)
    return np.std(values, axis=axis, ddof=min(1, values.shape[-1] - 1))


def print_table(accuracy, fractions, n_train):
    """Accuracy in percent, mean and standard deviation over seeds; best mean starred."""
    full = 100 * np.array(accuracy["random", 0.0])
    n_seeds = len(full)
    print(f"\nTest accuracy in %, mean and standard deviation over {n_seeds} seeds.")
    print(f"All {n_train} training samples: {full.mean():.1f} ({spread(full):.1f})\n")
    kept = [n_train - round(f * n_train) for f in fractions]
    print("pruned".ljust(12) + "".join(f"{f:>14.0%}" for f in fractions))
    print("kept".ljust(12) + "".join(f"{k:>14}" for k in kept))
    print("-" * (12 + 14 * len(fractions)))
    best = {f: max(STRATEGIES, key=lambda s: np.mean(accuracy[s, f])) for f in fractions}
    for strategy in STRATEGIES:
        cells = ""
        for f in fractions:
            values = 100 * np.array(accuracy[strategy, f])
            star = "*" if best[f] == strategy else " "
            cells += f"{values.mean():.1f} ({spread(values):.1f}){star}".rjust(14)
        print(strategy.ljust(12) + cells)
    print("\n* best mean of its column; random keeps the same number of samples of each class.")


def plot_curves(accuracy, fractions, title, path):
    """Accuracy against the pruned fraction, one line a strategy, bands of one sd."""
    display = PruningCurveDisplay.from_predictions(
        fractions,
        {s: [100 * np.array(accuracy[s, f]) for f in fractions] for s in STRATEGIES},
        full_scores=100 * np.array(accuracy["random", 0.0]),
        score_name="test accuracy (%)",
        band="sd",
    )
    display.ax_.set_title(title)
    display.figure_.savefig(path, dpi=130)
    plt.close(display.figure_)


def plot_relations(pruner, X, y, path):
    """Redundant samples above the samples that dominate them."""
    display = SamplePairsDisplay.from_estimator(pruner, X[:, 0], y)
    display.figure_.savefig(path, dpi=130)
    plt.close(display.figure_)


def run_study(name, title, net, X, y, splits, fractions, folder, *, minutes):
    """The whole study: the grid, its table and picture, and the picture of relations."""
    folder.mkdir(parents=True, exist_ok=True)
    curves, relations = folder / f"{name}_curves.png", folder / f"{name}_relations.png"
    torch.set_num_threads(1)  # the grid runs two fits at once
    train = splits[0][0]
    n_fits = len(splits) * (1 + len(STRATEGIES) * len(fractions))
    print(
        f"Prunes {len(train)} training samples by {len(STRATEGIES)} strategies at {len(fractions)} "
        f"fractions with {len(splits)} seeds: trains {n_fits + len(splits)} small networks on two "
        f"cores, which takes about {minutes:g} minutes.",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as cache:
        accuracy = accuracy_grid(net, X, y, splits, fractions, cache=cache, n_jobs=2)
        print_table(accuracy, fractions, len(train))
        plot_curves(accuracy, fractions, f"{title}, {len(splits)} seeds", curves)
        pruner = RedundancyPruner(net=net, strategy="redundant", memory=cache, random_state=0)
        pruner.fit_resample(X[train], y[train])
        plot_relations(pruner, X[train], y[train], relations)
    share = pruner.n_redundant_ / len(train)
    print(f"\nThe paper's rule ρ > 1 calls {share:.0%} of the {len(train)} samples redundant.")
    print(f"Pictures: {curves}, {relations}")


def options_of(description, **extra):
    """Command line options: the number of seeds, the folder, and integers of the example's."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default 3)")
    parser.add_argument("--out", type=Path, default=Path("artifacts"), help="folder of the output")
    for name, default in extra.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    return parser.parse_args()
