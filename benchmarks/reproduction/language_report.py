"""Pages and rows of the experiments with language models, from their raw numbers.

python -m benchmarks.reproduction.language_report
"""

import json
from collections import defaultdict

import numpy as np
import torch

from sklearn_lpntk.language import squeeze

from .records import FOLDER
from .report import PAGE, write_row

SPREADS, VOCABULARY, CASES = (0.3, 1, 3, 10), 1000, 5000
RULES = {
    "gradient_similarity": "gradient similarity",
    "cosine": "gradient similarity, cosine",
    "adam": "gradient similarity, Adam's step",
    "sketch of 512": "gradient similarity, 512 components",
    "herding": "herding",
    "coverage": "coverage",
    "redundant": "redundant ones last",
    "highest loss": "highest loss",
    "lowest loss": "lowest loss",
    "longest": "longest",
    "random": "random",
    "lengths of gradient_similarity": "random, of the lengths selected",
    "all matching": "all that match",
}


def rows_of(name):
    path = FOLDER / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def page(name, text):
    (PAGE.parent / f"{name}.txt").write_text(text.rstrip() + "\n")


def of_draws(values):
    """Mean and standard error."""
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) / len(values) ** 0.5:.3f}"


def selection():
    found = defaultdict(list)
    for row in rows_of("language_selection"):
        found[row["rule"]].append(row)
    n = len(found["random"])
    lines = [
        f"200 of 800 sequences, {n} draws; loss on 400 new ones of the matching language after 100",
        f"steps, before them {of_draws([row['before'] for row in found['random']])} (nats)",
        "",
        f"{'':36s}{'share that matches':>20s}{'loss':>18s}",
    ]
    for rule, name in RULES.items():
        values = [of_draws([row[key] for row in found[rule]]) for key in ("precision", "loss")]
        lines.append(f"{name:36s}{values[0]:>20s}{values[1]:>18s}")
    page("language_selection", "\n".join(lines))
    ours, controls = found["gradient_similarity"], [k for k in RULES if k not in OURS]
    best = min(np.mean([row["loss"] for row in found[k]]) for k in controls)
    precision, loss = (np.mean([row[key] for row in ours]) for key in ("precision", "loss"))
    write_row(
        "language_selection",
        claim="Gradients find the sequences of a mixture that match a validation set (LESS)",
        paper="LESS: 5 % of the data often above all of it",
        here=f"{precision:.0%} of those selected match (chance: 25 %); loss {loss:.2f}, best "
        f"control {best:.2f}",
        verdict="reproduces, on a small task",
    )


OURS = ("gradient_similarity", "cosine", "adam", "sketch of 512", "all matching")


def nthr():
    rows = rows_of("nthr")
    n = len(rows)
    kinds = {
        "nthr": "NTHR",
        "grpo": "GRPO",
        "random": "as many random tokens spared",
        "positive": "right answers alone",
    }
    lines = [
        f"One step from the same weights, {n} groups of 8 answers that are partly right, 3 models:",
        "change of the right answers' mean log-probability (nats), and in how many NTHR is above",
        "",
    ]
    above = {}
    for kind, name in kinds.items():
        above[kind] = np.mean([row["nthr"] > row[kind] for row in rows])
        share = "" if kind == "nthr" else f"{above[kind]:>12.1%}"
        lines.append(f"{name:32s}{of_draws([1000 * row[kind] for row in rows]):>18s}e-3{share}")
    shares = {}
    for what in ("words", "digits"):
        shares[what] = sum(row[f"{what}_selected"] for row in rows) / sum(row[what] for row in rows)
    lines += [
        "",
        f"Tokens of wrong answers that are spared: {shares['words']:.0%} of the words, "
        f"{shares['digits']:.1%} of the digits.",
    ]
    page("nthr", "\n".join(lines))
    write_row(
        "nthr",
        claim="NTHR: sparing some tokens of wrong answers raises the right ones more than GRPO",
        paper="lazy displacement mended at 0.5 to 3 B parameters",
        here=f"above GRPO in {above['grpo']:.0%} of {n} groups, above as many random tokens in "
        f"{above['random']:.0%}",
        verdict="reproduces, on a small task",
    )


def squeezing():
    lines = [
        f"One context of {VOCABULARY} tokens, {CASES:,} cases each: normal logits of a spread, a",
        "token that is pushed down by a step of 1, drawn at random or the unlikeliest",
        "",
        f"{'spread':>8s}{'largest probability':>22s}{'tokens that fall':>20s}"
        f"{'of the unlikeliest':>22s}",
    ]
    shares, wrong = [], 0
    for k, spread in enumerate(SPREADS):
        generator = torch.Generator().manual_seed(k)
        z = spread * torch.randn(CASES, VOCABULARY, generator=generator, dtype=torch.float64)
        proba = torch.softmax(z, 1)
        negative = torch.randint(VOCABULARY, (CASES,), generator=generator)
        fallen = []
        for which in (negative, z.argmin(1)):
            after = torch.softmax(squeeze(z, which, 1.0), 1)
            fallen.append(float((after < proba).double().mean()))
            own = torch.arange(CASES)
            others = z.scatter(1, which[:, None], -torch.inf).argmax(1)
            wrong += int((after[own, which] > proba[own, which] + 1e-12).sum())
            wrong += int((after[own, others] < proba[own, others] - 1e-12).sum())
        peak = float(proba.amax(1).mean())
        lines.append(f"{spread:>8g}{peak:>22.3f}{fallen[0]:>20.1%}{fallen[1]:>22.1%}")
        shares.append(fallen[0])
    lines += ["", f"Violations of the two certain signs: {wrong} in {2 * len(SPREADS) * CASES:,}."]
    page("squeezing", "\n".join(lines))
    write_row(
        "squeezing",
        claim="Squeezing grows with peakedness; the pushed token falls, the likeliest other rises",
        paper="Learning Dynamics of LLM Finetuning, section 3.3",
        here=f"{shares[0]:.0%} to {shares[-1]:.0%} of tokens fall; {wrong} violations in "
        f"{2 * len(SPREADS) * CASES:,}",
        verdict="reproduces" if not wrong and shares == sorted(shares) else "does not reproduce",
    )


KINDS = ("chosen", "rephrased", "rejected", "permuted", "argmax", "likeliest")
# the authors' logs of Qwen1.5-1.8B: src/exp_results of github.com/Joshua-Ren/Learning_dynamics_LLM,
# first and last record; their argmax is the likeliest token by now, of none that is fixed
LOGGED = {
    "SFT on the chosen": (
        (-122.8, -128.3, -97.1, -361.8, None, -128.8),
        (-87.8, -127.8, -88.6, -370.4, None, -107.4),
    ),
    "SFT on both": (
        (-122.8, -128.3, -97.1, -361.8, None, -128.8),
        (-79.2, -131.3, -60.6, -376.9, None, -102.9),
    ),
    "DPO after the first": (
        (-78.1, -129.2, -91.5, -374.2, None, -106.5),
        (-135.8, -257.8, -295.2, -521.4, None, -88.9),
    ),
}


def _line(name, values):
    cells = ["-" if value is None else f"{value:.1f}" for value in values]
    return f"{name:26s}" + "".join(f"{cell:>11s}" for cell in cells)


def dynamics():
    found = defaultdict(list)
    for row in rows_of("language_dynamics"):
        found[row["run"], row["phase"], row["seed"]].append(row)
    seeds = sorted({seed for *_, seed in found})
    lines = [
        "Log-probabilities (nats), means over 8 answers and the draws "
        + ", ".join(map(str, seeds)),
        "",
        f"{'':26s}" + "".join(f"{kind:>11s}" for kind in KINDS),
    ]
    changes = {}
    for title, run, phase in (
        ("SFT on the chosen", "sft", "sft"),
        ("  then DPO", "sft", "dpo"),
        ("SFT on both", "extend", "sft"),
        ("  then DPO", "extend", "dpo"),
    ):
        parts = [sorted(found[run, phase, s], key=lambda row: row["step"]) for s in seeds]
        steps = [row["step"] for row in parts[0]]
        for at in (0, len(steps) // 2, len(steps) - 1):
            values = [np.mean([part[at][kind] for part in parts]) for kind in KINDS]
            name = f"{title if at == 0 else '':18s} step {steps[at]:>2d}"
            lines.append(_line(name, values))
        changes[run, phase] = {
            kind: [part[-1][kind] - part[0][kind] for part in parts] for kind in KINDS
        }
        changes[run, phase]["chosen halfway"] = [
            part[len(steps) // 2]["chosen"] - part[0]["chosen"] for part in parts
        ]
        changes[run, phase]["early rejected"] = [
            part[len(steps) // 4]["rejected"] - part[0]["rejected"] for part in parts
        ]
    lines += ["", "The authors' logs, Qwen1.5-1.8B, another data set", ""]
    for name, ends in LOGGED.items():
        for when, values in zip(("first", "last"), ends):
            lines.append(_line(f"{name if when == 'first' else '':20s} {when:>5s}", values))
    page("language_dynamics", "\n".join(lines))
    _dynamics_rows(changes)


def _dynamics_rows(changes):
    sft, dpo, extended = (
        changes[key] for key in (("sft", "sft"), ("sft", "dpo"), ("extend", "dpo"))
    )
    mean = {kind: np.mean(values) for kind, values in dpo.items()}
    paper = "Learning Dynamics of LLM Finetuning, sections 4.1 and 4.2"
    logged = {name: np.subtract(b[:3], a[:3]) for name, (a, b) in LOGGED.items()}
    rises = all(value > 0 for value in sft["early rejected"])
    write_row(
        "language_dynamics_sft",
        claim="SFT raises rejected answers early, too",
        paper=f"{paper}; logged: by 10.2 nats in a third of the records, "
        f"{logged['SFT on the chosen'][2]:+.1f} in the end",
        here=f"SmolLM2: by {np.mean(sft['early rejected']):.1f} nats in a quarter of the steps",
        verdict="reproduces" if rises else "does not reproduce",
    )
    falls = all(value < 0 for value in dpo["chosen"])
    deep = all(r < 2 * c for r, c in zip(dpo["rejected"], dpo["chosen"]))
    likeliest = all(value > 0 for value in dpo["likeliest"])
    write_row(
        "language_dynamics_dpo",
        claim="DPO: chosen answers end below their start, rejected ones far below, and the "
        "likeliest tokens above",
        paper=f"{paper}; logged: {logged['DPO after the first'][0]:+.1f}, "
        f"{logged['DPO after the first'][2]:+.1f}, +17.6",
        here=f"chosen {mean['chosen']:+.1f} nats, rejected {mean['rejected']:+.1f}, likeliest by "
        f"then {mean['likeliest']:+.1f}, those that were likeliest at the start "
        f"{mean['argmax']:+.1f}",
        verdict="reproduces" if falls and deep and likeliest
        else "reproduces, but for the likeliest tokens" if falls and deep
        else "does not reproduce",
    )  # fmt: skip
    ratio = np.mean(extended["chosen"]) / mean["chosen"]
    halfway = [np.mean(run["chosen halfway"]) for run in (extended, dpo)]
    write_row(
        "language_dynamics_extend",
        claim="SFT on both answers first halves the fall of the chosen ones",
        paper=paper,
        here=f"{np.mean(extended['chosen']):+.1f} nats instead of {mean['chosen']:+.1f}; halfway "
        f"{halfway[0]:+.1f} instead of {halfway[1]:+.1f}",
        verdict="reproduces" if ratio <= 0.6
        else "halfway, not in the end" if halfway[0] >= 0.6 * halfway[1]
        else "does not reproduce",
    )  # fmt: skip


if __name__ == "__main__":
    dynamics()
    squeezing()
    nthr()
    selection()
