"""Figures 2, 3 and 7: pruned training sets against full ones, and against random subsets.

For each seed a scoring net is trained, the paper's recipes choose what goes, and a net is trained
on the rest; so are nets on random subsets of the same size, and on as many samples as EL2N, GraNd
and k-center would keep. Two arms: as many steps as on all samples, and as many epochs. The
validation set picks the checkpoint. Paired tests over the seeds.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import ttest_1samp, ttest_rel
from sklearn.frozen import FrozenEstimator

from sklearn_lpntk import RedundancyPruner

from .criterion import retrained
from .data import load, split
from .records import FOLDER, Records, arguments, seeds_of
from .report import save_figure, write_row
from .training import RECIPES, as_fitted_net, train

CHOSEN_BY = ("recipe", "random", "el2n", "grand", "k_center")
FOUND_BY_THE_PAPER = {  # all samples against those left by Figure 2's and Figure 3's recipe
    "mnist": ("t(19) = 0.293, p = 0.774", "t(19) = −3.205, p = 0.005"),
    "cifar": ("t(19) = 1.562, p = 0.153", "t(19) = −3.996, p = 0.003"),
}
MARGIN = 0.005  # of accuracy, by which a pruned set may be worse and still count as no worse

# name: options of the pruner that choose how many go
RECIPES_OF_THE_PAPER = {
    "redundant": {"strategy": "redundant", "prune_fraction": "auto"},
    "redundant, pNTK": {"strategy": "redundant", "prune_fraction": "auto", "kernel": "pntk"},
    "redundant+head": {"strategy": "redundant+head", "prune_fraction": "auto"},
    "redundant+head at 20 %": {"strategy": "redundant+head", "prune_fraction": 0.2},
    "head": {"strategy": "head", "prune_fraction": "auto"},
    "keep_head, 5 % kept": {"strategy": "keep_head", "prune_fraction": 0.95},
    "keep_head, 1 % kept": {"strategy": "keep_head", "prune_fraction": 0.99},
}


def run(name, data, seeds, recipes, records, *, n_train, chosen_by=CHOSEN_BY):
    """Fill the records, a draw for each seed."""
    for seed in seeds:
        wanted = [{"seed": seed, "recipe": "all", "chosen_by": "all"}] + [
            {"seed": seed, "recipe": recipe, "chosen_by": by}
            for recipe in recipes
            for by in chosen_by
        ]
        missing = [row for row in wanted if row not in records]
        if not missing:
            continue
        part = split(data, name, seed, n_train=n_train)
        recipe, validation = RECIPES[name], (part.X_validation, part.y_validation)
        best = train(recipe, part.X, part.y, validation, 1000 + seed, {"a": recipe.n_steps})["a"]
        net = FrozenEstimator(as_fitted_net(best[0]))
        kept = {"all": np.arange(len(part.y))}
        for row in missing:
            rows = _chosen(row, net, part, seed, kept)
            records.append(row | retrained(recipe, part, rows, seed))


def _chosen(row, net, part, seed, kept):
    """Rows that are kept; a control keeps as many as the recipe."""
    recipe = row["recipe"]
    if recipe not in kept:
        kept[recipe] = _kept(net, part, seed, **RECIPES_OF_THE_PAPER[recipe])
    if row["chosen_by"] in ("all", "recipe"):
        return kept[recipe]
    fraction = 1 - len(kept[recipe]) / len(part.y)
    return _kept(net, part, seed, strategy=row["chosen_by"], prune_fraction=fraction)


def _kept(net, part, seed, **options):
    pruner = RedundancyPruner(net=net, random_state=seed, **options)
    pruner.fit_resample(part.X, part.y)
    return pruner.sample_indices_


def recipes_in(rows):
    """The recipes of the paper that were run."""
    return [name for name in RECIPES_OF_THE_PAPER if any(r["recipe"] == name for r in rows)]


def compared(rows, recipe, arm):
    """Accuracy by who chose, tests against random subsets and against all samples.

    The tests are over the seeds that have all three; other controls may have fewer seeds.
    """
    by_seed = {}
    for row in rows:
        if row["recipe"] in ("all", recipe):
            by_seed.setdefault(row["chosen_by"], {})[row["seed"]] = row[arm]
    tested = ("all", "recipe", "random")
    seeds = sorted(set.intersection(*(set(by_seed[by]) for by in tested)))
    scores = {
        by: np.array([by_seed[by][s] for s in seeds if s in by_seed[by]])
        for by in ("all", *CHOSEN_BY)
        if by in by_seed
    }
    against_random = ttest_rel(scores["recipe"], scores["random"])
    loss = scores["recipe"] - scores["all"]
    no_worse = ttest_1samp(loss, -MARGIN, alternative="greater")
    return scores, against_random, no_worse


def described(rows, recipe, arm="steps"):
    """One line for a recipe."""
    scores, against_random, no_worse = compared(rows, recipe, arm)
    n = [r["n_kept"] for r in rows if r["recipe"] == recipe and r["chosen_by"] == "recipe"]
    df = len(scores["all"]) - 1
    means = ", ".join(
        f"{by} {100 * v.mean():.2f}" + (f" [{len(v)} seeds]" if len(v) <= df else "")
        for by, v in scores.items()
    )
    return (
        f"{np.mean(n):.0f} kept: {means} %; against random t({df}) = "
        f"{against_random.statistic:.2f}, p = {against_random.pvalue:.1g}; not worse than all by "
        f"{100 * MARGIN:.1f} points: p = {no_worse.pvalue:.1g}"
    )


def verdict(rows, recipes, level=0.05):
    """Which recipes differ from random subsets of the same size."""
    found = {"worse than": [], "no different from": [], "better than": []}
    for recipe in recipes:
        test = compared(rows, recipe, "steps")[1]
        differs = test.pvalue < level
        kind = ("better than" if test.statistic > 0 else "worse than") if differs else None
        found[kind or "no different from"].append(recipe)
    parts = [f"{kind} random: {'; '.join(names)}" for kind, names in found.items() if names]
    return f"{'. '.join(parts)} (p < {level:g})"


def main():
    parser = arguments(__doc__, FOUND_BY_THE_PAPER)
    every = list(RECIPES_OF_THE_PAPER)
    parser.add_argument("--recipes", nargs="+", default=every, choices=every)
    parser.add_argument("--chosen-by", nargs="+", default=list(CHOSEN_BY), choices=CHOSEN_BY)
    options = parser.parse_args()
    torch.set_num_threads(1)
    name = options.dataset
    keys = ("seed", "recipe", "chosen_by")
    records = Records(options.out or FOLDER / f"pruning_{name}.jsonl", keys)
    if not options.report:
        data = load(name, options.cifar)
        seeds = seeds_of(options)
        sizes = {"n_train": options.n_train, "chosen_by": options.chosen_by}
        run(name, data, seeds, options.recipes, records, **sizes)
    for recipe in recipes_in(records.rows):
        for arm in ("steps", "epochs"):
            print(f"{recipe}, same {arm}: {described(records.rows, recipe, arm)}")
    if not options.out:
        report(name, records.rows)


def report(name, rows):
    figure, axes = plt.subplots(1, 2, figsize=(13, 4.5), layout="constrained", sharey=True)
    for ax, arm in zip(axes, ("steps", "epochs"), strict=True):
        for k, recipe in enumerate(recipes_in(rows)):
            scores, *_ = compared(rows, recipe, arm)
            for j, (by, color) in enumerate(
                (("recipe", "#0072B2"), ("random", "#000000"), ("k_center", "#E69F00"))
            ):
                values = 100 * scores[by]
                ax.errorbar(
                    k + 0.2 * (j - 1),
                    values.mean(),
                    values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0,
                    fmt="o",
                    color=color,
                    label=by if k == 0 else None,
                )
        ax.axhline(100 * scores["all"].mean(), color="0.6", label="all samples")
        names = recipes_in(rows)
        ax.set_xticks(range(len(names)), names, rotation=25, ha="right")
        ax.set(title=f"same number of {arm}", ylabel="test accuracy (%)")
    axes[0].legend()
    save_figure(figure, f"pruning_{name}")
    for key, recipes, claim, paper in (
        (
            f"pruning_{name}",
            ("redundant", "redundant, pNTK", "redundant+head at 20 %"),
            "Figures 2 and 3: without redundant samples no worse; without a tenth of the head, "
            "too, better than all samples",
            f"no worse, {FOUND_BY_THE_PAPER[name][0]}, by pNTK worse; without the head better, "
            f"{FOUND_BY_THE_PAPER[name][1]}",
        ),
        (
            f"keep_head_{name}",
            ("keep_head, 5 % kept", "keep_head, 1 % kept"),
            "Figure 7: where 5 or 1 % are kept, the head cluster is better than random samples",
            "higher accuracy than random samples (curves only)",
        ),
    ):
        write_row(
            key,
            claim=f"{claim}; {name.upper()}",
            paper=paper,
            here="; ".join(f"**{r}**: {described(rows, r)}" for r in recipes),
            verdict=verdict(rows, recipes),
        )


if __name__ == "__main__":
    main()
