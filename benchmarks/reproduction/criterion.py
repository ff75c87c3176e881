"""Which criterion wins: every strategy of the pruner, by data set, label noise and share kept.

For each draw one scoring net is trained on all samples, every strategy orders them once, and a
new net is trained on what is kept. Two arms: the same number of steps as on all samples, and the
same number of epochs. The validation set, with the noise of the training set, picks the checkpoint.
"""

import argparse
import time

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator

from sklearn_lpntk import RedundancyPruner
from sklearn_lpntk.pruning._orders import STRATEGIES

from .data import load, split
from .records import FOLDER, Records
from .training import RECIPES, accuracy, as_fitted_net, train

KEPT = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
KEYS = ("noise", "seed", "strategy", "kept")


def run(name, data, noises, seeds, strategies, kept, records, *, n_train=None):
    """Fill the records with what is asked for and not there yet."""
    for seed in seeds:
        for noise in noises:
            missing = _missing(records, noise, seed, strategies, kept)
            if missing:
                _run_draw(
                    name, split(data, name, seed, noise=noise, n_train=n_train), missing, records
                )


def _missing(records, noise, seed, strategies, kept):
    """Rows to be filled, by strategy; ``"all"`` is the net on all samples."""
    wanted = {"all": [1.0]} | {s: list(kept) for s in strategies}
    rows = {
        s: [{"noise": noise, "seed": seed, "strategy": s, "kept": k} for k in shares]
        for s, shares in wanted.items()
    }
    rows = {s: [row for row in some if row not in records] for s, some in rows.items()}
    return {s: some for s, some in rows.items() if some}


def _run_draw(name, part, missing, records):
    recipe, seed = RECIPES[name], next(iter(missing.values()))[0]["seed"]
    validation = part.X_validation, part.y_validation
    scoring = train(recipe, part.X, part.y, validation, 1000 + seed, {"steps": recipe.n_steps})
    net = FrozenEstimator(as_fitted_net(scoring["steps"][0]))
    for strategy, rows in missing.items():
        start = time.process_time()
        subsets = _subsets(strategy, net, part, [row["kept"] for row in rows], seed)
        scoring_seconds = time.process_time() - start
        for row, rows_kept in zip(rows, subsets, strict=True):
            found = retrained(recipe, part, rows_kept, seed)
            records.append(row | found | {"scoring_cpu_s": round(scoring_seconds, 2)})


def _subsets(strategy, net, part, shares, seed):
    if strategy == "all":
        return [np.arange(len(part.y))]
    pruner = RedundancyPruner(net=net, strategy=strategy, random_state=seed)
    return list(pruner.prune_path(part.X, part.y, [1 - share for share in shares]))


def retrained(recipe, part, rows, seed):
    """Test accuracy of a net trained on some rows, in both arms."""
    epochs = max(1, round(recipe.n_steps * len(rows) / len(part.y)))
    validation = part.X_validation, part.y_validation
    arms = {"steps": recipe.n_steps, "epochs": epochs}
    best = train(recipe, part.X[rows], part.y[rows], validation, seed, arms)
    found = {"n_kept": len(rows), "share_wrong": round(float(part.is_wrong[rows].mean()), 4)}
    scores = {}
    for arm, (module, step, _) in best.items():
        if step not in scores:
            scores[step] = accuracy(module, part.X_test, part.y_test)
        found |= {arm: scores[step], f"{arm}_checkpoint": step}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", choices=RECIPES)
    parser.add_argument("--cifar", help="an .npz file with X_train, y_train, X_test, y_test")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.1, 0.2])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--kept", type=float, nargs="+", default=KEPT)
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    parser.add_argument("--n-train", type=int)
    parser.add_argument("--out", help="file of the raw numbers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.out or FOLDER / f"criterion_{options.dataset}.jsonl"
    run(
        options.dataset,
        load(options.dataset, options.cifar),
        options.noise,
        range(options.first_seed, options.first_seed + options.seeds),
        options.strategies,
        options.kept,
        Records(path, KEYS),
        n_train=options.n_train,
    )


if __name__ == "__main__":
    main()
