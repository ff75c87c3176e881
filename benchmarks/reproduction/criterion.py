"""Which criterion wins: every strategy of the pruner, by data set, label noise and share kept.

For each draw one scoring net is trained on all samples, every strategy orders them once, and a
new net is trained on what is kept. Two arms: the same number of steps as on all samples, and the
same number of epochs. The validation set, with the noise of the training set, picks the checkpoint.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.frozen import FrozenEstimator

from sklearn_lpntk import RedundancyPruner
from sklearn_lpntk.inspection import PruningCurveDisplay
from sklearn_lpntk.pruning._strategies import STRATEGIES

from .data import load, split
from .records import FOLDER, Records, arguments, seeds_of
from .report import PAGE, save_figure, write_row
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
    parser = arguments(__doc__, RECIPES, seeds=5)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.1, 0.2])
    parser.add_argument("--kept", type=float, nargs="+", default=KEPT)
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.out or FOLDER / f"criterion_{options.dataset}.jsonl"
    records = Records(path, KEYS)
    if not options.report:
        run(
            options.dataset,
            load(options.dataset, options.cifar),
            options.noise,
            seeds_of(options),
            options.strategies,
            options.kept,
            records,
            n_train=options.n_train,
        )
    for arm in ARMS:
        print(f"same {arm}\n{table(records.rows, arm)}")
    if not options.out:
        report(options.dataset, records.rows)


# -- the page -----------------------------------------------------------------------------

ARMS = ("steps", "epochs")
CONTROLS = ("random", "el2n", "grand", "k_center", "k_center_input")


def scores_of(rows, arm):
    """Accuracies in percent by (noise, strategy, share kept)."""
    scores = {}
    for row in rows:
        key = row["noise"], row["strategy"], row["kept"]
        scores.setdefault(key, []).append(100 * row[arm])
    return scores


def _mean_and_se(values):
    return np.mean(values), np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0


def table(rows, arm):
    """Means and standard errors as text, a block for each noise; best mean starred.

    In square brackets the number of seeds of a strategy that has fewer than others.
    """
    scores, lines = scores_of(rows, arm), []
    kept = sorted({k for _, s, k in scores if s != "all"})
    strategies = [s for s in STRATEGIES if any(key[1] == s for key in scores)]
    for noise in sorted({key[0] for key in scores}):
        full = scores.get((noise, "all", 1.0), [np.nan])
        mean, se = _mean_and_se(full)
        n_seeds = f"{len(full)} seeds"
        lines.append(f"{noise:.0%} wrong labels, {n_seeds}; all samples: {mean:.1f} ({se:.1f})")
        lines.append("kept".ljust(17) + "".join(f"{k:>12.0%}" for k in kept))
        best = {
            k: max(strategies, key=lambda s: np.mean(scores.get((noise, s, k), [-1]))) for k in kept
        }
        for s in strategies:
            cells = [scores.get((noise, s, k)) for k in kept]
            texts = ["" if c is None else "{:.1f} ({:.1f})".format(*_mean_and_se(c)) for c in cells]
            stars = ["*" if best[k] == s else " " for k in kept]
            n = min(len(c) for c in cells if c)
            name = s if n == len(full) else f"{s} [{n}]"  # fewer seeds than the others
            lines.append(
                name.ljust(18) + "".join(f"{t}{x}".rjust(12) for t, x in zip(texts, stars))
            )
        lines.append("")
    return "\n".join(lines)


def against_controls(rows, strategy, arm="steps"):
    """(noise, kept, difference to the best control in points, standard error of that control)."""
    scores, found = scores_of(rows, arm), []
    for noise, s, kept in sorted(scores):
        if s != strategy:
            continue
        controls = [scores[key] for c in CONTROLS if (key := (noise, c, kept)) in scores]
        mean, se = max(_mean_and_se(c) for c in controls)
        found.append((noise, kept, np.mean(scores[noise, s, kept]) - mean, se))
    return found


def verdict(rows, strategies):
    """The strategies that are below the best control in no cell."""
    never = [s for s in strategies if all(d >= -se for *_, d, se in against_controls(rows, s))]
    if not never:
        return "no rule wins everywhere; see the tables"
    return f"never below the best control by more than its s.e.: {', '.join(never)}"


def described(rows, strategy):
    """Where a strategy is above, within and below the best control, by its standard error."""
    cells = against_controls(rows, strategy)
    above = sum(d > se for *_, d, se in cells)
    better = sum(d > 0 for *_, d, _ in cells)
    below = sorted((d, se, n, k) for n, k, d, se in cells if d < -se)
    text = (
        f"**{strategy}** has a better mean than the best control in {better} of {len(cells)} "
        f"cells, by more than its s.e. in {above}"
    )
    if not below:
        return text + ", and is below it by more in none"
    where = [f"{d:+.1f} (s.e. {se:.1f}) at {k:.0%} kept, {n:.0%} noise" for d, se, n, k in below]
    worst = "the largest gaps " if len(where) > 4 else ""
    return f"{text}, and is below it by more in {len(below)}: {worst}{', '.join(where[:4])}"


def report(name, rows):
    (PAGE.parent / f"criterion_{name}.txt").write_text(
        "\n".join(f"Same number of {arm}.\n\n{table(rows, arm)}" for arm in ARMS)
    )
    noises = sorted({row["noise"] for row in rows})
    figure, axes = plt.subplots(
        1, len(noises), figsize=(5.5 * len(noises), 4.5), layout="constrained", sharey=True
    )
    scores = scores_of(rows, "steps")
    shown = ("herding", "coverage", "redundant", "random", "k_center", "el2n")
    for ax, noise in zip(np.atleast_1d(axes), noises):
        kept = sorted({k for n, s, k in scores if n == noise and s != "all"})
        by_strategy = {
            s: _padded([scores.get((noise, s, k), []) for k in kept])
            for s in shown
            if any(key[1] == s for key in scores)
        }
        PruningCurveDisplay.from_predictions(
            [1 - k for k in kept],
            by_strategy,
            full_scores=scores.get((noise, "all", 1.0)),
            score_name="test accuracy (%)",
            ax=ax,
            ms=4,
        )
        ax.set_title(f"{name}, {noise:.0%} wrong labels, ± 1 s.e.")
    save_figure(figure, f"criterion_{name}")
    n_seeds = len({row["seed"] for row in rows})
    strategies = [s for s in ("herding", "coverage") if any(row["strategy"] == s for row in rows)]
    write_row(
        f"criterion_{name}",
        claim=f"Which criterion wins, {name.upper()}, {n_seeds} seeds, same number of steps",
        paper="(not in the paper)",
        here="; ".join(described(rows, s) for s in strategies),
        verdict=verdict(rows, strategies),
    )


def _padded(lists):
    """Lists of different length as rows, filled up with nan."""
    width = max(1, *map(len, lists))
    return np.array([[*values, *[np.nan] * (width - len(values))] for values in lists])


if __name__ == "__main__":
    main()
