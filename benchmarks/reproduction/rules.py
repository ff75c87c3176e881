"""Which rule keeps its promise: every rule, by data set, net, kind and share of wrong labels.

For each draw one scoring net is trained on all rows, each rule orders them once, and a new net is
trained on what is kept for the same number of steps as on all rows, to its end: no validation set
picks a checkpoint. What is being judged, on which data, is written in RULES.md before the run.

    python -m benchmarks.reproduction.rules digits wine --seeds 4 --cifar FILE
"""

import argparse
import tempfile
import time
import warnings

import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_lpntk import RedundancyPruner
from sklearn_lpntk._skorch.default_net import default_net

from ..nets import digit_net, lenet5
from .data import load
from .records import FOLDER, Records
from .tables import TABLES, load_table

KEPT = (0.05, 0.1, 0.2, 0.5, 0.7, 0.9)
CORE = (
    "random",
    "herding",
    "clean_herding",
    "net_clean_random",
    "aum",
    "small_loss",
    "loo_rbf",
)
OTHERS = (
    "coverage",
    "clean_coverage",
    "ccs",
    "moderate",
    "d2",
    "forgetting",
    "el2n",
    "k_center",
    "loo_infinite",
)
# (kind of noise, share of wrong labels, whether all rules are compared or the core of them)
NOISES = (
    ("uniform", 0.0, True),
    ("uniform", 0.2, True),
    ("similar", 0.2, True),
    ("uniform", 0.1, False),
    ("uniform", 0.4, False),
    ("similar", 0.1, False),
    ("similar", 0.4, False),
)
N_TRAIN, N_TEST = {"digits": 1347, "mnist": 3000, "cifar": 4000}, 2500
FEW_KEPT = (0.05, 0.2, 0.5)  # where all rules or all shares of noise would take too long
KEYS = ("data", "net", "kind", "noise", "seed", "strategy", "kept")
BATCH_SIZE = 64


class Perceptron(nn.Sequential):
    """The own net of the tables."""

    def __init__(self, n_inputs, n_classes):
        super().__init__(
            nn.Linear(n_inputs, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(),
            nn.Linear(128, n_classes),
        )  # fmt: skip


def cifar_net():
    """Three convolutions with batch normalisation for 32 x 32 colour images."""
    layers = []
    for n_in, n_out in ((3, 16), (16, 32), (32, 64)):
        conv = nn.Conv2d(n_in, n_out, 3, stride=2, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(n_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, 10))


# module, learning rate of Adam, epochs
OWN = {
    "digits": (digit_net, 5e-3, 15),
    "mnist": (lenet5, 2e-3, 6),
    "cifar": (cifar_net, 2e-3, 10),
}


def own_net(name, X, n_classes):
    """A net as its user would write it, and train it to its end."""
    module, lr, epochs = OWN.get(name, (Perceptron, 2e-3, 20))
    sizes = {} if name in OWN else {"module__n_inputs": X.shape[1], "module__n_classes": n_classes}
    return NeuralNetClassifier(
        module,
        **sizes,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=lr,
        max_epochs=epochs,
        batch_size=BATCH_SIZE,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )


def drawn(name, seed, kind, noise, cifar=None):
    """X, y, wrong labels among them, X_test, y_test and the right labels of a draw."""
    rng = np.random.default_rng([seed, 15])
    if name in TABLES:
        X, y, X_test, y_test = load_table(name, rng)
    else:
        X, y, X_test, y_test = load(name, cifar)
        rows = rng.permutation(len(y))
        if X_test is None:
            X_test, y_test = X[rows[N_TRAIN[name] :]], y[rows[N_TRAIN[name] :]]
        else:
            X_test, y_test = X_test[:N_TEST], y_test[:N_TEST]
        X, y = X[rows[: N_TRAIN[name]]], y[rows[: N_TRAIN[name]]]
    return X, with_noise(X, y, kind, noise, rng), X_test, y_test, y


def with_noise(X, y, kind, noise, rng):
    """A share of the labels replaced: by any other class, or by the one of the nearest mean."""
    K = int(y.max()) + 1
    wrong = rng.permutation(len(y))[: round(noise * len(y))]
    noisy = y.copy()
    if kind == "uniform":
        noisy[wrong] = (y[wrong] + rng.integers(1, K, len(wrong))) % K
        return noisy
    means = np.array([X[y == k].reshape((y == k).sum(), -1).mean(0) for k in range(K)])
    distances = ((means[:, None] - means) ** 2).sum(2)
    np.fill_diagonal(distances, np.inf)
    noisy[wrong] = distances.argmin(1)[y[wrong]]
    return noisy


def scoring_net(name, net, X, n_classes):
    return default_net(X, n_classes) if net == "default" else own_net(name, X, n_classes)


def predictions_of(net, X, y, rows, X_test, seed):
    """Classes that a new net predicts, trained on some rows for as many steps as on all.

    The learning rate falls linearly to nothing, so that the end is no accident.
    """
    torch.manual_seed(seed)
    options = net.get_params()
    sizes = {k.removeprefix("module__"): v for k, v in options.items() if k[:8] == "module__"}
    module = options["module"](**sizes).train()
    optimizer = torch.optim.Adam(module.parameters(), lr=options["lr"], fused=True)
    n_steps = options["max_epochs"] * -(-len(y) // BATCH_SIZE)
    X, y, generator = torch.as_tensor(X[rows]), torch.as_tensor(y[rows]), torch.Generator()
    generator.manual_seed(seed)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, n_steps)
    while n_steps > 0:
        for batch in torch.randperm(len(y), generator=generator).split(BATCH_SIZE)[:n_steps]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(X[batch]), y[batch]).backward()
            optimizer.step()
            schedule.step()
            n_steps -= 1
    with torch.no_grad():
        logits = [module.eval()(torch.as_tensor(part)) for part in np.array_split(X_test, 10)]
    return torch.cat(logits).argmax(1).numpy()


def cells_of(every, rules=None):
    """(rule, share kept) to be run where all rules are compared, or the core of them."""
    cells = [("all", 1.0), *((r, k) for r in CORE for k in (KEPT if every else FEW_KEPT))]
    cells += [(r, k) for r in OTHERS for k in FEW_KEPT if every]
    return [cell for cell in cells if rules is None or cell[0] in rules]


def run_draw(draw, net_name, cells, records, cifar=None):
    """Fill the records of one draw and net."""
    name, kind, noise, seed = draw
    missing = {}
    for rule, kept in cells:
        values = (name, net_name, kind, noise, seed, rule, kept)
        row = dict(zip(KEYS, values, strict=True))
        if row not in records:
            missing.setdefault(rule, []).append(row)
    if not missing:
        return
    X, y, X_test, y_test, right = drawn(name, seed, kind, noise, cifar)
    net = scoring_net(name, net_name, X, int(right.max()) + 1)
    given = None if net_name == "default" else net
    with tempfile.TemporaryDirectory() as memory:
        for rule, rows in missing.items():
            start = time.process_time()
            options = {"net": given, "strategy": rule, "random_state": seed, "memory": memory}
            subsets = [np.arange(len(y))]
            if rule != "all":
                fractions = [1 - row["kept"] for row in rows]
                subsets = RedundancyPruner(**options).prune_path(X, y, fractions)
                subsets = list(subsets)
            seconds = round(time.process_time() - start, 2)
            for row, kept in zip(rows, subsets, strict=True):
                predicted = predictions_of(net, X, y, kept, X_test, seed)
                found = {
                    "accuracy": float((predicted == y_test).mean()),
                    "share_wrong": round(float((y != right)[kept].mean()), 4),
                    "cpu_s": seconds,
                }
                records.append(row | found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="+", choices=[*N_TRAIN, *TABLES])
    parser.add_argument("--cifar", help="an .npz file with X_train, y_train, X_test, y_test")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--nets", nargs="+", default=["default", "own"])
    parser.add_argument("--rules", nargs="+", help="those of the design, if none")
    parser.add_argument("--out", help="folder of the raw numbers", default=FOLDER)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    for seed in seeds:
        for name in options.datasets:
            records = Records(f"{options.out}/rules_{name}.jsonl", KEYS)
            for kind, noise, every in NOISES:
                if kind == "similar" and name in ("cancer", "fair"):
                    continue  # of two classes there is one other
                for net in options.nets:
                    cells = cells_of(every, options.rules)
                    run_draw((name, kind, noise, seed), net, cells, records, options.cifar)


if __name__ == "__main__":
    main()
