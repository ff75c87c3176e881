"""Rare classes: whether contradicted samples go first among all samples or in each class.

Where half of the classes of digits, or the larger one of breast cancer, keep a tenth of their
training rows; *fair* as it is, a third of one class. Test rows are weighted so that classes are as
frequent as in training; balanced accuracy weighs classes alike. Everything else is as in `rules`.

    python -m benchmarks.reproduction.rare digits cancer fair
"""

import argparse
import tempfile

import numpy as np
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from sklearn_lpntk import RedundancyPruner

from .records import FOLDER, begun, one_of
from .report import PAGE
from .rules import KEYS, drawn, predictions_of, scoring_net, with_noise

KEPT = (0.1, 0.3, 0.7)
NOISES = (("uniform", 0.0), ("uniform", 0.2), ("similar", 0.2), ("similar", 0.4))
RULES = {
    "random": ("random", "all"),
    "herding": ("herding", "all"),
    "clean_herding": ("clean_herding", "all"),
    "the same within classes": ("clean_herding", "class"),
}
RARE = {"digits": (5, 6, 7, 8, 9), "cancer": (1,), "fair": ()}
FEWEST = 8


def imbalanced(name, seed):
    """X, right labels, X_test, y_test: of the rare classes a tenth of the training rows."""
    X, y, X_test, y_test, _ = drawn(name, seed, "uniform", 0.0)
    rng = np.random.default_rng([seed, 16])
    kept = np.ones(len(y), dtype=bool)
    for label in RARE[name]:
        rows = rng.permutation(np.flatnonzero(y == label))
        kept[rows[max(FEWEST, len(rows) // 10) :]] = False
    return X[kept], y[kept], X_test, y_test


def run_draw(name, kind, noise, seed, records):
    X, right, X_test, y_test = imbalanced(name, seed)
    y = with_noise(X, right, kind, noise, np.random.default_rng([seed, 17]))
    weights = (np.bincount(right) / np.bincount(y_test))[y_test]
    for net_name in ("default", "own"):
        net = scoring_net(name, net_name, X, int(right.max()) + 1)
        given = None if net_name == "default" else net
        with tempfile.TemporaryDirectory() as memory:
            for rule, (strategy, scope) in RULES.items():
                values = ((name, net_name, kind, noise, seed, rule, kept) for kept in KEPT)
                rows = [dict(zip(KEYS, of_row, strict=True)) for of_row in values]
                if all(row in records for row in rows):
                    continue
                options = {"strategy": strategy, "scope": scope, "random_state": seed}
                pruner = RedundancyPruner(net=given, memory=memory, **options)
                subsets = pruner.prune_path(X, y, [1 - kept for kept in KEPT])
                for row, kept in zip(rows, subsets, strict=True):
                    predicted = predictions_of(net, X, y, kept, X_test, seed)
                    accuracy = accuracy_score(y_test, predicted, sample_weight=weights)
                    balanced = balanced_accuracy_score(y_test, predicted)
                    records.append(row | {"accuracy": accuracy, "balanced": balanced})


def table(rows):
    """Means over nets, shares kept and draws, of the accuracies in %, and gains over random."""
    lines = ["accuracy / balanced accuracy, %".ljust(34) + "".join(r.rjust(26) for r in RULES)]
    for name in RARE:
        for kind, noise in NOISES:
            here = [r for r in rows if (r["data"], r["kind"], r["noise"]) == (name, kind, noise)]
            if not here:
                continue
            means = [_means([r for r in here if r["strategy"] == rule]) for rule in RULES]
            cells = ["{:.1f} / {:.1f}".format(*means[0])]
            cells += ["{:+.1f} / {:+.1f}".format(*(of_rule - means[0])) for of_rule in means[1:]]
            title = f"{noise:.0%} wrong, {kind}" if noise else "no wrong labels"
            seeds = len({r["seed"] for r in here})
            lines.append(
                f"{name}, {title} ({seeds})".ljust(34) + "".join(c.rjust(26) for c in cells)
            )
    return "\n".join(lines) + "\n"


def _means(rows):
    return 100 * np.mean([(r["accuracy"], r["balanced"]) for r in rows], axis=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="*", type=one_of(*RARE))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--out", help="file of the raw numbers", default=FOLDER / "rare.jsonl")
    options, records = begun(parser, KEYS)
    for seed in range(options.seeds):
        for name in options.datasets:
            for kind, noise in NOISES:
                if kind == "uniform" or name == "digits":
                    run_draw(name, kind, noise, seed, records)
    text = table(records.rows)
    print(text)
    (PAGE.parent / "rare.txt").write_text(text)


if __name__ == "__main__":
    main()
