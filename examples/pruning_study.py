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
from sklearn_lpntk.kernels import empirical_ntk

BATCH_SIZE = 64

# kernel strategies solid, controls dashed; Okabe and Ito's colours
STYLES = {
    "herding": ("#0072B2", "-", "o"),
    "coverage": ("#009E73", "-", "s"),
    "redundant": ("#D55E00", "-", "v"),
    "random": ("#000000", "--", "x"),
    "el2n": ("#CC79A7", "--", "+"),
    "k_center": ("#E69F00", "--", "d"),
}


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
            {"prune__strategy": list(STYLES), "prune__prune_fraction": list(fractions)},
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
    best = {f: max(STYLES, key=lambda s: np.mean(accuracy[s, f])) for f in fractions}
    for strategy in STYLES:
        cells = ""
        for f in fractions:
            values = 100 * np.array(accuracy[strategy, f])
            star = "*" if best[f] == strategy else " "
            cells += f"{values.mean():.1f} ({spread(values):.1f}){star}".rjust(14)
        print(strategy.ljust(12) + cells)
    print("\n* best mean of its column; random keeps the same number of samples of each class.")


def plot_curves(accuracy, fractions, title, path):
    """Accuracy against the pruned fraction, one line a strategy, bands of one sd."""
    figure, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
    full = 100 * np.array(accuracy["random", 0.0])
    ax.axhline(full.mean(), color="0.6", lw=1, label="all samples")
    for strategy, (color, line, marker) in STYLES.items():
        values = 100 * np.array([accuracy[strategy, f] for f in fractions])
        mean, sd = values.mean(axis=1), spread(values, axis=1)
        x = 100 * np.asarray(fractions)
        ax.plot(x, mean, color=color, ls=line, marker=marker, label=strategy)
        ax.fill_between(x, mean - sd, mean + sd, color=color, alpha=0.12, lw=0)
    ax.set(xlabel="pruned training samples (%)", ylabel="test accuracy (%)", title=title)
    ax.legend(title="solid: kernel, dashed: control", fontsize="small")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def relation_examples(net, X, y, *, cache, seed=0, n_pairs=8):
    """The most redundant samples with their dominators, and the most contradictory pair.

    Returns
    -------
    pruner : fitted RedundancyPruner
    pairs : list of (sample, dominator)
    contradictory : (i, j)
        The pair of smallest cosine.
    cosine : float
    """
    pruner = RedundancyPruner(net=net, strategy="redundant", memory=cache, random_state=seed)
    pruner.fit_resample(X, y)
    redundant = np.flatnonzero(pruner.dominators_ >= 0)
    strongest = redundant[np.argsort(-pruner.redundancy_[redundant])[:n_pairs]]
    pairs = [(a, pruner.dominators_[a]) for a in strongest]
    return pruner, pairs, *most_contradictory_pair(empirical_ntk(pruner.net_, X, y))


def most_contradictory_pair(operator, n_rows=500):
    """The pair of smallest cosine, from one strip of rows at a time."""
    norms = np.sqrt(operator.diag())
    best, pair = np.inf, None
    for start in range(0, len(norms), n_rows):
        rows = slice(start, start + n_rows)
        cosine = operator.block(rows, slice(None)) / (norms[rows, None] * norms)
        if cosine.min() < best:
            best = cosine.min()
            i, j = np.unravel_index(np.argmin(cosine), cosine.shape)
            pair = start + i, j
    return pair, best


def plot_relations(X, y, pruner, pairs, contradictory, cosine, path):
    """Redundant samples above the samples that dominate them; the contradictory pair aside."""
    n = len(pairs)
    figure, axes = plt.subplots(2, n + 2, figsize=(1.25 * (n + 2), 3.6), layout="constrained")
    for ax in axes.flat:
        ax.set_axis_off()

    def show(ax, i, note):
        ax.imshow(X[i, 0], cmap="gray_r")
        ax.set_title(f"{y[i]}{note}", fontsize=9)

    for column, (sample, dominator) in enumerate(pairs):
        show(axes[0, column], sample, f"\nρ = {pruner.redundancy_[sample]:.1f}")
        show(axes[1, column], dominator, "")
    for row, i in enumerate(contradictory):
        show(axes[row, n + 1], i, f"\ncos = {cosine:.2f}" if row == 0 else "")
    axes[0, 0].text(
        -0.25, 0.5, "redundant", transform=axes[0, 0].transAxes, rotation=90, va="center"
    )
    axes[1, 0].text(
        -0.25, 0.5, "dominated by", transform=axes[1, 0].transAxes, rotation=90, va="center"
    )
    figure.suptitle("Most redundant digits, label above; right: the most contradictory pair")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def run_study(name, title, net, X, y, splits, fractions, folder):
    """The whole study: the grid, its table and picture, and the picture of relations."""
    folder.mkdir(parents=True, exist_ok=True)
    curves, relations = folder / f"{name}_curves.png", folder / f"{name}_relations.png"
    torch.set_num_threads(1)  # the grid runs two fits at once
    train = splits[0][0]
    with tempfile.TemporaryDirectory() as cache:
        accuracy = accuracy_grid(net, X, y, splits, fractions, cache=cache, n_jobs=2)
        print_table(accuracy, fractions, len(train))
        plot_curves(accuracy, fractions, f"{title}, {len(splits)} seeds", curves)
        found = relation_examples(net, X[train], y[train], cache=cache)
        plot_relations(X[train], y[train], *found, relations)
    share = found[0].n_redundant_ / len(train)
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
