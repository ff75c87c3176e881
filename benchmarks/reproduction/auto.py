"""What `strategy="auto"` chooses, and what that is worth: its candidates are those of `rules`.

Run after `rules`, whose accuracies of the candidates on the same draws are looked up.

    python -m benchmarks.reproduction.auto digits wine cancer
"""

import argparse
import time

import numpy as np

from sklearn_lpntk import RedundancyPruner
from sklearn_lpntk.pruning._strategies import CANDIDATES

from .records import FOLDER, Records, begun, one_of
from .report import PAGE
from .rules import KEYS, N_TRAIN, drawn, scoring_net
from .tables import TABLES

KEPT = (0.1, 0.5)
NOISES = (("uniform", 0.0), ("uniform", 0.2), ("similar", 0.2))
AUTO_KEYS = tuple(key for key in KEYS if key != "strategy")


def chosen(name, net_name, kind, noise, seed, kept, cifar=None):
    """What is chosen for a draw, and the CPU seconds of the whole fit."""
    X, y, _, _, right = drawn(name, seed, kind, noise, cifar)
    net = scoring_net(name, net_name, X, int(right.max()) + 1)
    pruner = RedundancyPruner(
        net=None if net_name == "default" else net,
        strategy="auto",
        prune_fraction=1 - kept,
        budget="steps",
        random_state=seed,
    )
    start = time.process_time()
    pruner.fit_resample(X, y)
    seconds = round(time.process_time() - start, 2)
    return {"chosen": pruner.best_strategy_, "scores": pruner.selection_scores_, "cpu_s": seconds}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="*", type=one_of(*N_TRAIN, *TABLES))
    parser.add_argument("--cifar", help="an .npz file with X_train, y_train, X_test, y_test")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rules", help="folder of the raw numbers of `rules`", default=FOLDER)
    parser.add_argument("--out", help="file of the raw numbers", default=FOLDER / "auto.jsonl")
    options, records = begun(parser, AUTO_KEYS)
    accuracies = {}
    for name in (*N_TRAIN, *TABLES):
        for row in Records(f"{options.rules}/rules_{name}.jsonl", KEYS).rows:
            accuracies[tuple(row[k] for k in KEYS)] = 100 * row["accuracy"]
    for name in options.datasets:
        for seed in range(options.seeds):
            for kind, noise in NOISES:
                for net in ("default", "own"):
                    for kept in KEPT:
                        row = dict(zip(AUTO_KEYS, (name, net, kind, noise, seed, kept)))
                        known = (name, net, kind, noise, seed, "random", kept) in accuracies
                        if known and row not in records:
                            found = chosen(name, net, kind, noise, seed, kept, options.cifar)
                            records.append(row | found)
    text = table(records.rows, accuracies)
    print(text)
    (PAGE.parent / "auto.txt").write_text(text)


def table(rows, accuracies):
    """By data set: accuracy by each candidate and by the chosen one, means over all cells."""
    lines = [
        "data".ljust(10) + "".join(s.rjust(15) for s in (*CANDIDATES, "auto", "best", "cells"))
    ]
    for name in dict.fromkeys(row["data"] for row in rows):
        cells = []
        for row in (r for r in rows if r["data"] == name):
            key = {k: row[k] for k in AUTO_KEYS}
            by = {
                s: accuracies[tuple((key | {"strategy": s})[k] for k in KEYS)] for s in CANDIDATES
            }
            cells.append([*by.values(), by[row["chosen"]]])
        means = np.mean(cells, axis=0)
        best = means[: len(CANDIDATES)].max()
        values = "".join(f"{v:15.1f}" for v in (*means, best))
        lines.append(name.ljust(10) + values + f"{len(cells):15d}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
