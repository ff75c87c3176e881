"""How long a scoring net need be trained: MNIST by the default net of 1 to 10 epochs.

A new net is trained on what each keeps, as in `rules`; CPU seconds on one thread are those of the
scoring net and the order. In the same run: the net that stops early, as the pruner's default does.

    python -m benchmarks.reproduction.epochs --seeds 3
"""

import argparse
import time

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from sklearn_lpntk import RedundancyPruner

from .data import load
from .records import FOLDER, begun
from .report import PAGE
from .rules import predictions_of, scoring_net, with_noise

N_TRAIN, N_TEST = 10_000, 5000
KEPT = (0.05, 0.2, 0.5)
NETS = ("random", 1, 2, 4, 10, "stops early")
CASES = (("herding", 0.0), ("clean_herding", 0.2))
KEYS = ("strategy", "noise", "seed", "net", "kept")


def order_of(strategy, of_net, net, X, y, seed):
    """The subsets that are kept, and the CPU seconds of finding them."""
    start = time.process_time()
    given = None
    if isinstance(of_net, int):
        torch.manual_seed(seed)
        fitted = clone(net).set_params(max_epochs=of_net).fit(X, y.astype(np.int64))
        given = FrozenEstimator(fitted)
    strategy = "random" if of_net == "random" else strategy
    pruner = RedundancyPruner(net=given, strategy=strategy, random_state=seed)
    subsets = list(pruner.prune_path(X, y, [1 - kept for kept in KEPT]))
    return subsets, round(time.process_time() - start, 2)


def run_draw(strategy, noise, seed, records):
    X, y, *_ = load("mnist")
    rng = np.random.default_rng([seed, 18])
    rows = rng.permutation(len(y))
    X_test, y_test = (of_all[rows[N_TRAIN : N_TRAIN + N_TEST]] for of_all in (X, y))
    X, y = X[rows[:N_TRAIN]], y[rows[:N_TRAIN]]
    y = with_noise(X, y, "uniform", noise, rng)
    net = scoring_net("mnist", "default", X, 10)
    for of_net in NETS:
        of_kept = [dict(zip(KEYS, (strategy, noise, seed, of_net, k), strict=True)) for k in KEPT]
        if all(row in records for row in of_kept):
            continue
        subsets, seconds = order_of(strategy, of_net, net, X, y, seed)
        for row, kept in zip(of_kept, subsets, strict=True):
            predicted = predictions_of(net, X, y, kept, X_test, seed)
            found = {"accuracy": float((predicted == y_test).mean()), "cpu_s": seconds}
            records.append(row | found)


def table(rows):
    """Test accuracy in %, means over the draws, by strategy and scoring net."""
    blocks = []
    for strategy, noise in CASES:
        here = [r for r in rows if (r["strategy"], r["noise"]) == (strategy, noise)]
        if not here:
            continue
        seeds = len({r["seed"] for r in here})
        lines = [f"{strategy}, {noise:.0%} wrong labels, {seeds} draws; kept"]
        lines[0] = lines[0].ljust(48) + "".join(f"{k:>10.0%}" for k in KEPT) + "     CPU s"
        for net in NETS:
            of_net = [r for r in here if r["net"] == net]
            name = f"{net} epochs" if isinstance(net, int) else net
            means = [100 * np.mean([r["accuracy"] for r in of_net if r["kept"] == k]) for k in KEPT]
            values = "".join(f"{v:10.1f}" for v in means)
            seconds = np.mean([r["cpu_s"] for r in of_net])
            lines.append(f"  {name}".ljust(48) + values + f"{seconds:10.1f}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", help="file of the raw numbers", default=FOLDER / "epochs.jsonl")
    options, records = begun(parser, KEYS)
    for seed in range(options.seeds):
        for strategy, noise in CASES:
            run_draw(strategy, noise, seed, records)
    text = table(records.rows)
    print(text)
    (PAGE.parent / "epochs.txt").write_text(text)


if __name__ == "__main__":
    main()
