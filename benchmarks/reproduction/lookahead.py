"""Active learning by look-ahead queries beside random, margin, entropy, BADGE, other look-aheads.

A network learns from 20 labels, asks for 10 more, learns anew from all, eight times over. BADGE has
scikit-activeml's distances; the infinite-width look-ahead has the kernel of an infinitely wide
network in place of the network's; one SGD step looks at what a single step on the candidate and its
pseudo label would change. Networks are trained on squared errors of one-hot labels, or with
cross-entropy; after that the look-ahead continues probabilities, but for one row, "on logits".

``--fidelity`` compares predicted changes with those of real training. ``--out`` is a folder.
"""

import copy
import time
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax
from scipy.stats import pearsonr, ttest_1samp
from torch import nn

from sklearn_lpntk._engine.objectives import Objective
from sklearn_lpntk._features import make_extractor
from sklearn_lpntk._skorch.networks import Network
from sklearn_lpntk.active import LookaheadQuery, lookahead_predict, lookahead_scores
from sklearn_lpntk.active._objectives import as_given
from sklearn_lpntk.infinite import InfiniteWidthNTK
from sklearn_lpntk.linearized._kernels import Features, TangentKernel

from .data import load
from .records import FOLDER, Records, arguments, seeds_of
from .report import PAGE, save_figure, write_row

DATASETS = ("digits", "mnist")
N_START, N_QUERIES, N_CYCLES, N_POOL, N_TEST = 20, 10, 8, 800, 800
# how networks are trained: optimizer, rate, steps on all labelled samples
WAYS = {"gradient descent": (torch.optim.SGD, 0.1, 1000), "Adam": (torch.optim.Adam, 5e-3, 150)}
KEYS = ("seed", "loss", "strategy")
FIDELITY = ("seed", "loss")
LOSSES = {"squares": "trained on squared errors", "cross-entropy": "trained with cross-entropy"}
N_CANDIDATES = 30  # of a fidelity run


def Net(n_inputs):
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(n_inputs, 128),
        nn.ReLU(),
        nn.Linear(128, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def trained(X, y, seed, loss, how="Adam"):
    """A network on labelled samples; its draws depend on the seed alone."""
    torch.manual_seed(seed)
    return continued(Net(X[0].size), X, y, loss, how)


def continued(net, X, y, loss, how):
    """The network after more steps on some samples."""
    optimizer, rate, n_steps = WAYS[how]
    optimizer = optimizer(net.parameters(), lr=rate)
    inputs, targets = torch.as_tensor(X), torch.as_tensor(y)
    one_hot = nn.functional.one_hot(targets, 10).float()
    for _ in range(n_steps):
        optimizer.zero_grad()
        outputs = net(inputs)
        if loss == "squares":
            ((outputs - one_hot) ** 2).sum(1).mean().backward()
        else:
            nn.functional.cross_entropy(outputs, targets).backward()
        optimizer.step()
    return net.eval()


@torch.no_grad()
def logits(net, X):
    return net(torch.as_tensor(X)).double().numpy()


# -- strategies: (net, X_labelled, y_labelled, X_pool, rng) -> indices -----------------------


def by_random(net, X, y, pool, rng, loss):
    return rng.choice(len(pool), N_QUERIES, replace=False)


def by_margin(net, X, y, pool, rng, loss):
    proba = np.sort(softmax(logits(net, pool), 1), 1)
    return np.argsort(proba[:, -1] - proba[:, -2], kind="stable")[:N_QUERIES]


def by_entropy(net, X, y, pool, rng, loss):
    proba = softmax(logits(net, pool), 1)
    return np.argsort((proba * np.log(proba + 1e-300)).sum(1), kind="stable")[:N_QUERIES]


def by_badge(net, X, y, pool, rng, loss):
    """k-means++ on gradients of the last layer, by scikit-activeml's own functions."""
    from skactiveml.pool._badge import _d_2

    proba = softmax(logits(net, pool), 1)
    hidden = logits(net[:-1], pool)
    residual = proba - np.eye(10)[proba.argmax(1)]
    g = (residual[:, :, None] * hidden[:, None]).reshape(len(pool), -1)
    chosen, d = [], None
    for step in range(N_QUERIES):
        d = _d_2(g, []) if step == 0 else _d_2(g, [chosen[-1]], d)
        j = int(np.argmax(d)) if step == 0 else int(rng.choice(len(d), p=d / d.sum()))
        chosen.append(j)
    return np.array(chosen)


def by_lookahead(**options):
    def query(net, X, y, pool, rng, loss):
        outputs = "logits" if loss == "squares" else "probabilities"
        return (
            LookaheadQuery(net, **{"outputs": outputs} | options).fit(X, y).query(pool, N_QUERIES)
        )

    return query


def by_one_step(net, X, y, pool, rng, loss):
    """The candidates whose own step of gradient descent moves the pool's outputs most."""
    change = one_step_changes(net, pool, logits(net, pool).argmax(1), pool, loss)
    norms = np.linalg.norm(change, axis=2).sum(0)
    return np.argsort(-norms, kind="stable")[:N_QUERIES]


def one_step_changes(net, X, labels, seen, loss):
    """Changes of logits (n_seen, n, K) by a step of rate 1 on each sample's loss."""
    out = logits(net, X)
    values = out if loss == "squares" else softmax(out, 1)
    error = torch.as_tensor(np.eye(10)[labels] - values)

    def step(z, y):
        return error[y].to(z)  # y numbers the samples

    network = Network(net)
    left = Features(network, "entk")(seen)
    extractor = make_extractor(
        network,
        kernel=Objective("step", lambda z, y: (step(z, y) * z).sum(1, keepdim=True), needs_y=True),
    )
    right = extractor(X, np.arange(len(X)))
    return TangentKernel.matrix(left, right).reshape(len(seen), 10, len(X)).transpose(0, 2, 1)


STRATEGIES = {
    "random": by_random,
    "margin": by_margin,
    "entropy": by_entropy,
    "BADGE": by_badge,
    "one SGD step": by_one_step,
    "infinite NTK": by_lookahead(kernel=InfiniteWidthNTK(bias_std=0.1)),
    "look-ahead": by_lookahead(),
    "look-ahead, sequential": by_lookahead(batch="sequential"),
    "look-ahead, agreement": by_lookahead(objective="agreement"),
    "look-ahead, expected risk": by_lookahead(objective="expected_risk"),
    "look-ahead on logits": by_lookahead(outputs="logits"),
}


def drawn(data, seed):
    """Initial labelled samples, pool, and test samples."""
    X, y = data[0], data[1]
    rows = np.random.default_rng([seed, 11]).permutation(len(X))[: N_START + N_POOL + N_TEST]
    X, y = X[rows].astype(np.float32), y[rows].astype(np.int64)
    cut = N_START + N_POOL
    return X[:cut], y[:cut], X[cut:], y[cut:]


def curve(data, seed, loss, strategy):
    """Accuracies after every cycle."""
    X, y, X_test, y_test = drawn(data, seed)
    known, rng = np.arange(N_START), np.random.default_rng([seed, 13])
    found, seconds = [], 0.0
    for cycle in range(N_CYCLES + 1):
        net = trained(X[known], y[known], seed, loss)
        found.append(float((logits(net, X_test).argmax(1) == y_test).mean()))
        if cycle < N_CYCLES:
            rest = np.setdiff1d(np.arange(len(X)), known)
            start = time.process_time()
            asked = STRATEGIES[strategy](net, X[known], y[known], X[rest], rng, loss)
            seconds += time.process_time() - start
            known = np.concatenate([known, rest[asked]])
    return {"accuracy": found, "cpu_s": round(seconds / N_CYCLES, 3)}


DRAWN = (
    "random",
    "margin",
    "BADGE",
    "one SGD step",
    "infinite NTK",
    "look-ahead",
    "look-ahead, sequential",
)


# -- fidelity -----------------------------------------------------------------------------


def fidelity(data, seed, loss):
    """Predicted changes of the pool's outputs by one label beside those of real training.

    From the weights of the network ("continued") and from the initial ones ("anew"), for networks
    that were trained by plain gradient descent, and by Adam.
    """
    X, y, _, _ = drawn(data, seed)
    form = "logits" if loss == "squares" else "probabilities"
    some = np.random.default_rng([seed, 17]).choice(N_POOL, N_CANDIDATES, replace=False)
    known, pool, found = np.arange(N_START), X[N_START:], {}
    for how in WAYS:
        net = trained(X[known], y[known], seed, loss, how)
        before = as_given(logits(net, pool), form)
        guess = before.argmax(1)
        predicted = predictions(net, X[known], y[known], pool, some, guess, form, loss)
        start = time.process_time()
        lookahead_scores(net, X[known], y[known], pool, outputs=form)
        seconds = (time.process_time() - start) / len(pool)
        real, start = {"anew": [], "continued": []}, time.process_time()
        for j in some:
            more = X[np.append(known, N_START + j)], np.append(y[known], guess[j])
            real["anew"].append(trained(*more, seed, loss, how))
            real["continued"].append(continued(copy.deepcopy(net), *more, loss, how))
        retraining = (time.process_time() - start) / len(some) / 2
        for manner, nets in real.items():
            changes = [as_given(logits(other, pool), form) - before for other in nets]
            for name, guesses in predicted.items():
                found[f"{how}, {manner}: {name}"] = float(
                    np.mean([pearsonr(a.ravel(), b.ravel())[0] for a, b in zip(guesses, changes)])
                )
    return {"correlation": found, "speedup": retraining / seconds}


def predictions(net, X, y, pool, some, guess, form, loss):
    """Changes of outputs (n_pool, K) for some candidates, by look-aheads and by one step."""
    before = as_given(logits(net, pool), form)
    step = one_step_changes(net, pool[some], guess[some], pool, loss)
    limit = InfiniteWidthNTK(bias_std=0.1)
    found = {"look-ahead": [], "infinite NTK": [], "one SGD step": []}
    for k, j in enumerate(some):
        for name, kernel in (("look-ahead", "pntk"), ("infinite NTK", limit)):
            after = lookahead_predict(
                net, X, y, pool[[j]], guess[[j]], pool, kernel=kernel, outputs=form
            )
            found[name].append(after - before)
        change = step[:, k]
        if form == "probabilities":  # one small step of the logits, as probabilities
            change = softmax(logits(net, pool) + 1e-3 * change, 1) - before
        found["one SGD step"].append(change)
    return found


def main():
    parser = arguments(__doc__, DATASETS, seeds=6)
    parser.add_argument("--fidelity", action="store_true", help="compare with real retraining")
    options = parser.parse_args()
    torch.set_num_threads(1)
    name = options.dataset
    folder = FOLDER if options.out is None else Path(options.out)
    records = Records(folder / f"lookahead_{name}.jsonl", KEYS)
    beside = Records(folder / f"lookahead_fidelity_{name}.jsonl", FIDELITY)
    data = None if options.report else load(name)
    for seed in seeds_of(options) if data else ():
        for loss in LOSSES:
            row = {"seed": seed, "loss": loss}
            if options.fidelity and row not in beside:
                beside.append(row | fidelity(data, seed, loss))
            for strategy in STRATEGIES if not options.fidelity else ():
                row["strategy"] = strategy
                if row not in records:
                    records.append(row | curve(data, seed, loss, strategy))
    text = tables(records.rows, beside.rows)
    print(text)
    if options.out is None and records.rows and beside.rows:
        (PAGE.parent / f"lookahead_{name}.txt").write_text(text)
        write_row(f"lookahead_{name}", **summary(name, records.rows, beside.rows))
        save_figure(figure(records.rows), f"lookahead_{name}")


# -- the page -----------------------------------------------------------------------------


def curves(rows, loss, strategy):
    """Accuracies in percent: (n_seeds, n_cycles + 1), by seed."""
    wanted = [r for r in rows if (r["loss"], r["strategy"]) == (loss, strategy)]
    found = [r["accuracy"] for r in sorted(wanted, key=lambda r: r["seed"])]
    return 100 * np.array(found).reshape(-1, N_CYCLES + 1)


def tables(rows, beside):
    """Mean accuracy after every cycle, its mean over cycles less random's, and the fidelity."""
    blocks = []
    labels = "".join(f"{N_START + N_QUERIES * c:>7}" for c in range(N_CYCLES + 1))
    for loss in LOSSES:
        lines = [
            f"{LOSSES[loss]}, {len(curves(rows, loss, 'random'))} seeds; accuracy, %, by labels"
        ]
        lines.append(" " * 27 + labels + "   less random (s.e.)")
        for name in STRATEGIES:
            found = curves(rows, loss, name)
            if not len(found):
                continue
            gain = (found - curves(rows, loss, "random")[: len(found)])[:, 1:].mean(1)
            error = gain.std(ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else np.nan
            means = "".join(f"{v:7.1f}" for v in found.mean(0))
            lines.append(f"{name:<27}{means}   {gain.mean():+.1f} ({error:.1f})")
        blocks.append("\n".join(lines))
    for loss in LOSSES:
        some = [r for r in beside if r["loss"] == loss]
        if some:
            keys = some[0]["correlation"]
            means = {k: np.mean([r["correlation"][k] for r in some]) for k in keys}
            lines = [
                f"{LOSSES[loss]}: correlation with the changes by real training, {len(some)} seeds"
            ]
            lines += [f"  {k:<45}{v:.2f}" for k, v in means.items()]
            speed = np.median([r["speedup"] for r in some])
            lines.append(f"  CPU time of a retraining / of a candidate's score: {speed:,.0f}")
            blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def gain_over_random(rows, loss, strategy):
    """Mean over cycles of the accuracy less random's, by seed."""
    return (curves(rows, loss, strategy) - curves(rows, loss, "random"))[:, 1:].mean(1)


def summary(name, rows, beside):
    parts = []
    for loss in LOSSES:
        gains = ", ".join(
            f"{s} {gain_over_random(rows, loss, s).mean():+.1f}"
            for s in STRATEGIES
            if s != "random"
        )
        parts.append(f"**{LOSSES[loss]}**: {gains}")
    p = {loss: ttest_1samp(gain_over_random(rows, loss, "look-ahead"), 0).pvalue for loss in LOSSES}
    best = max(
        (s for s in STRATEGIES if "look-ahead" not in s),
        key=lambda s: gain_over_random(rows, "squares", s).mean(),
    )
    verdicts = ", ".join(f"p = {p[loss]:.2g} ({LOSSES[loss]})" for loss in LOSSES)
    return {
        "claim": f"Slides, look-ahead active learning, {name.upper()}: better than random and than "
        "one SGD step and the infinite NTK",
        "paper": "much more effective than infinite NTK and one-step SGD",
        "here": "accuracy less random's, mean over 8 cycles of 10 labels, points: "
        + "; ".join(parts),
        "verdict": f"look-ahead against random: {verdicts}; best of the others on squared "
        f"errors: {best}",
    }


def figure(rows):
    from matplotlib.figure import Figure

    from sklearn_lpntk.inspection import QueryCurveDisplay

    drawing = Figure(figsize=(11, 4), layout="constrained")
    n_labels = N_START + N_QUERIES * np.arange(N_CYCLES + 1)
    for ax, loss in zip(drawing.subplots(1, 2, sharey=True), LOSSES, strict=True):
        results = {s: curves(rows, loss, s) / 100 for s in DRAWN}
        QueryCurveDisplay.from_results(n_labels, results, ax=ax)
        ax.set_title(LOSSES[loss])
    return drawing


if __name__ == "__main__":
    main()
