"""Accuracy of regressions with tangent kernels beside a network that is trained.

The same network gives the pseudo-NTK and the full NTK at its initial weights, the pseudo-NTK after
training on the same samples, and the accuracy of that training; the kernel of its infinitely wide
counterpart stands beside. Ridges by leave-one-out; the full NTK, by conjugate gradients where its
matrix is large, takes the one of the pseudo-NTK.
"""

import time

import numpy as np
import torch
from torch import nn

from sklearn_lpntk.infinite import InfiniteWidthConvNTK, InfiniteWidthNTK
from sklearn_lpntk.linearized import NTKClassifier

from .data import load
from .records import FOLDER, Records, arguments, seeds_of
from .report import PAGE, write_row

DATASETS = ("digits", "mnist", "cifar")
N = {"digits": 1000, "mnist": 2000, "cifar": 2000}
N_TEST = {"digits": 700, "mnist": 2000, "cifar": 2000}
KEYS = ("seed", "net", "method")
METHODS = ("pNTK", "eNTK", "pNTK, trained", "infinite NTK", "SGD")
LARGE = 12_000  # rows of a matrix, from which conjugate gradients are used


def dense(shape, width=256):
    n = int(np.prod(shape))
    return nn.Sequential(
        nn.Flatten(), nn.Linear(n, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, 10),
    )  # fmt: skip


def convolutional(shape, width=32):
    size = shape[1] * shape[2] // 16
    return nn.Sequential(
        nn.Conv2d(shape[0], width, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(width * size, 10),
    )  # fmt: skip


NETS = {"dense": dense, "convolutional": convolutional}


def limit_of(kind, shape):
    if kind == "dense":
        return InfiniteWidthNTK(depth=2, bias_std=0.1, dtype="float32")
    return InfiniteWidthConvNTK(depth=2, image_shape=shape, stride=2, bias_std=0.1, dtype="float32")


def trained(net, X, y, n_epochs=40):
    """SGD with momentum and cross-entropy, at a rate that falls."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    n_steps = n_epochs * -(-len(X) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, n_steps)
    inputs, targets = torch.as_tensor(X), torch.as_tensor(y)
    for _ in range(n_epochs):
        for rows in torch.randperm(len(X)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(inputs[rows]), targets[rows]).backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def drawn(data, name, seed):
    X, y, X_test, y_test = data
    rng = np.random.default_rng([seed, 19])
    rows = rng.permutation(len(X))
    train, rest = rows[: N[name]], rows[N[name] :]
    if X_test is None:
        X_test, y_test = X[rest], y[rest]
    few = rng.permutation(len(X_test))[: N_TEST[name]]
    return X[train], y[train], X_test[few], y_test[few]


def accuracy(method, kind, seed, part, alpha):
    """Accuracy, the ridge, and the seconds, of one method."""
    X, y, X_test, y_test = part
    torch.manual_seed(seed)
    net, start = NETS[kind](X.shape[1:]), time.process_time()
    options = {"alpha": "loo", "offset": "centred"}
    if method in ("SGD", "pNTK, trained"):
        net = trained(net, X, y)
    if method == "SGD":
        with torch.no_grad():
            hits = (net(torch.as_tensor(X_test)).argmax(1).numpy() == y_test).mean()
        return {"accuracy": float(hits), "cpu_s": round(time.process_time() - start, 1)}
    if method == "infinite NTK":
        net = limit_of(kind, X.shape[1:])
    if method == "eNTK":
        large = 10 * len(X) > LARGE
        options |= {"kernel": "entk", "alpha": alpha, "solver": "cg" if large else "cholesky"}
    model = NTKClassifier(net, random_state=0, **options).fit(X, y)
    return {
        "accuracy": float(model.score(X_test, y_test)),
        "cpu_s": round(time.process_time() - start, 1),
        "alpha": model.alpha_,
    }


def main():
    options = arguments(__doc__, DATASETS, seeds=3).parse_args()
    torch.set_num_threads(1)
    name = options.dataset
    records = Records(options.out or FOLDER / f"kernel_regression_{name}.jsonl", KEYS)
    data = None if options.report else load(name, options.cifar)
    for seed in seeds_of(options) if data else ():
        part = drawn(data, name, seed)
        for kind in NETS:
            alpha = 1e-3
            for method in METHODS:
                row = dict(zip(KEYS, (seed, kind, method), strict=True))
                if row not in records:
                    records.append(row | accuracy(method, kind, seed, part, alpha))
                found = next(r for r in records.rows if all(r[k] == row[k] for k in KEYS))
                alpha = found["alpha"] if method == "pNTK" else alpha
    print(table(records.rows))
    if not options.out:
        (PAGE.parent / f"kernel_regression_{name}.txt").write_text(table(records.rows))
        write_row(f"kernel_regression_{name}", **summary(name, records.rows))


# -- the page -----------------------------------------------------------------------------


def values(rows, kind, method):
    """Accuracies in percent, one a seed."""
    wanted = [r for r in rows if (r["net"], r["method"]) == (kind, method)]
    return np.array([100 * r["accuracy"] for r in sorted(wanted, key=lambda r: r["seed"])])


def table(rows):
    n = len({r["seed"] for r in rows})
    lines = [f"accuracy, % (s.d.), {n} seeds", " " * 16 + "".join(f"{m:>18}" for m in METHODS)]
    for kind in NETS:
        cells = ""
        for method in METHODS:
            found = values(rows, kind, method)
            spread = found.std(ddof=1) if len(found) > 1 else 0.0
            cells += f"{found.mean():.1f} ({spread:.1f})".rjust(18) if len(found) else " " * 18
        lines.append(kind.ljust(16) + cells)
    return "\n".join(lines) + "\n"


def summary(name, rows):
    parts, orders = [], []
    for kind in NETS:
        means = {m: values(rows, kind, m).mean() for m in METHODS if len(values(rows, kind, m))}
        parts.append(f"**{kind}**: " + ", ".join(f"{m} {v:.1f}" for m, v in means.items()))
        holds = means["pNTK"] < means["infinite NTK"], means["pNTK"] < means["SGD"]
        orders.append(
            f"{kind}: pNTK {'below' if holds[0] else 'not below'} the infinite NTK, "
            f"{'below' if holds[1] else 'not below'} SGD by {means['SGD'] - means['pNTK']:.1f}"
        )
    return {
        "claim": f"Slides, kernel regression with pNTK, {name.upper()}, N = {N[name]:,}, accuracy "
        f"in %, {len({r['seed'] for r in rows})} seeds",
        "paper": "pNTK worse than infinite NTK for dense and convolutional nets, far worse than "
        "SGD on CIFAR-10",
        "here": "; ".join(parts),
        "verdict": "; ".join(orders),
    }


if __name__ == "__main__":
    main()
