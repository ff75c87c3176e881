"""Wrong labels found: leave-one-out margins beside cleanlab's out-of-fold scores and others.

By the area under the ROC curve, on the draws of `rules`, with the same net; for several lengths of
the scoring net's training, too. CPU seconds on one thread, training included.

    python -m benchmarks.reproduction.detection digits mnist cancer wine fair
"""

import argparse
import time

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from sklearn_lpntk import RedundancyPruner

from .records import FOLDER, begun, one_of
from .report import PAGE
from .rules import N_TRAIN, drawn, scoring_net
from .tables import TABLES

KEYS = ("data", "net", "kind", "noise", "seed", "method")
NOISES = (("uniform", 0.0), ("uniform", 0.2), ("similar", 0.2))
EPOCHS = (1, 2, 4, 8)
BY_STRATEGY = ("aum", "small_loss", "net_clean_random", "loo_infinite", "loo_rbf")


def by_strategy(strategy, net, X, y, seed):
    """What a strategy orders by: low where a label is doubted."""
    pruner = RedundancyPruner(net=net, strategy=strategy, prune_fraction=0.0, random_state=seed)
    pruner.fit_resample(X, y)
    scores = pruner.to_frame()["score"].to_numpy()
    return -scores if strategy == "small_loss" else scores


def out_of_fold(net, X, y, seed):
    """cleanlab's quality of labels, by its normalised margin, from five nets."""
    from cleanlab.rank import get_label_quality_scores

    proba = np.empty((len(y), int(y.max()) + 1))
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    for train, rest in folds.split(np.zeros(len(y)), y):
        torch.manual_seed(seed)
        fitted = clone(net).fit(X[train], y[train].astype(np.int64))
        proba[rest] = fitted.predict_proba(X[rest])
    return get_label_quality_scores(y, proba, method="normalized_margin")


def methods_of(net, is_default):
    """By name: a function of X, y and a seed that returns a score for each label."""
    given = None if is_default else net
    methods = {"clean_herding": lambda *draw: by_strategy("clean_herding", given, *draw)}
    for strategy in BY_STRATEGY:
        methods[strategy] = lambda *draw, s=strategy: by_strategy(s, given, *draw)
    for epochs in EPOCHS:
        fixed = clone(net).set_params(max_epochs=epochs)
        methods[f"{epochs} epochs"] = lambda *draw, n=fixed: fully_trained(n, *draw)
    methods["to its end"] = lambda *draw: fully_trained(net, *draw)
    methods["cleanlab"] = lambda *draw: out_of_fold(net, *draw)
    return methods


def fully_trained(net, X, y, seed):
    """The margins where the net does not stop early."""
    torch.manual_seed(seed)
    fitted = clone(net).fit(X, y.astype(np.int64))
    return by_strategy("clean_herding", FrozenEstimator(fitted), X, y, seed)


def measured(method, X, y, right, seed):
    start = time.process_time()
    scores = method(X, y, seed)
    seconds = time.process_time() - start
    wrong = y != right
    scores = np.clip(scores, -1e9, 1e9)
    found = {"cpu_s": round(seconds, 2), "doubted_of_right": float((scores < 0)[~wrong].mean())}
    if wrong.any():
        found["auroc"] = float(roc_auc_score(wrong, -scores))
        found["doubted_of_wrong"] = float((scores < 0)[wrong].mean())
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="*", type=one_of(*N_TRAIN, *TABLES))
    parser.add_argument("--cifar", help="an .npz file with X_train, y_train, X_test, y_test")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", help="file of the raw numbers", default=FOLDER / "detection.jsonl")
    options, records = begun(parser, KEYS)
    for seed in range(options.seeds):
        for name in options.datasets:
            for kind, noise in NOISES:
                if kind == "similar" and name in ("cancer", "fair"):
                    continue
                X, y, _, _, right = drawn(name, seed, kind, noise, options.cifar)
                for net_name in ("default", "own"):
                    net = scoring_net(name, net_name, X, int(right.max()) + 1)
                    for method, function in methods_of(net, net_name == "default").items():
                        values = (name, net_name, kind, noise, seed, method)
                        row = dict(zip(KEYS, values, strict=True))
                        if row not in records:
                            records.append(row | measured(function, X, y, right, seed))
    text = table(records.rows)
    print(text)
    (PAGE.parent / "detection.txt").write_text(text)


def table(rows):
    """AUROC in percent and CPU seconds, means over the draws."""
    names = list(dict.fromkeys((r["data"], r["net"]) for r in rows))
    methods = list(dict.fromkeys(r["method"] for r in rows))
    blocks = []
    for kind, noise in NOISES[1:]:
        lines = [f"{noise:.0%} wrong labels, {kind}: AUROC in %, and CPU seconds"]
        here = [
            n for n in names if any((r["data"], r["net"], r["kind"]) == (*n, kind) for r in rows)
        ]
        lines.append("".ljust(18) + "".join(f"{d} {n}".rjust(18) for d, n in here))
        for method in methods:
            texts = []
            for data, net in here:
                key = data, net, kind, noise, method
                found = [r for r in rows if tuple(r[k] for k in KEYS if k != "seed") == key]
                if not found:
                    texts.append("")
                    continue
                auroc, seconds = (np.mean([r[k] for r in found]) for k in ("auroc", "cpu_s"))
                texts.append(f"{100 * auroc:.1f} ({seconds:.1f} s)")
            lines.append(method.ljust(18) + "".join(t.rjust(18) for t in texts))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


if __name__ == "__main__":
    main()
