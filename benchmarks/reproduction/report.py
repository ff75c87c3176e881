"""Rows of the table in ``docs/reproduction.md``, and the figures beside it."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reproduction.md"
FIGURES = ROOT / "docs" / "images" / "reproduction"
ROWS = Path(__file__).parent / "results" / "rows.json"
BEGIN, END = "<!-- table begins -->", "<!-- table ends -->"
ORDER = (
    "difficulty",
    "forgetting_mnist",
    "forgetting_cifar",
    "convergence",
    "clusters_mnist",
    "clusters_cifar",
    "pruning_mnist",
    "pruning_cifar",
    "keep_head_mnist",
    "keep_head_cifar",
    "n_clusters_mnist",
    "n_clusters_cifar",
    "criterion_digits",
    "criterion_mnist",
    "criterion_cifar",
    *(
        f"infinite_{claim}_{data}"
        for claim in ("refurbishment", "schemes", "entanglement", "architecture")
        for data in ("mnist", "cifar", "digits")
    ),
    "infinite_refurbishment_mnist_5000",
    *(f"label_errors_{data}" for data in ("mnist", "cifar", "digits")),
    "widths",
    *(f"kernel_regression_{data}" for data in ("digits", "mnist", "cifar")),
    *(f"gcv_risk_{data}" for data in ("digits", "mnist")),
    *(f"ranking_{data}" for data in ("images", "texts")),
    *(f"lookahead_{data}" for data in ("digits", "mnist")),
    "squeezing",
    "language_dynamics_sft",
    "language_dynamics_dpo",
    "language_dynamics_extend",
    "nthr",
    "language_selection",
)


def write_row(name, *, claim, paper, here, verdict):
    """Keep a row of the table, and write the table anew."""
    rows = json.loads(ROWS.read_text()) if ROWS.exists() else {}
    rows[name] = {"claim": claim, "paper": paper, "here": here, "verdict": verdict}
    ROWS.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    lines = ["| claim | paper | here | verdict |", "|---|---|---|---|"]
    for key in ORDER:
        if key in rows:
            lines.append("| " + " | ".join(rows[key].values()) + " |")
    before, rest = PAGE.read_text().split(BEGIN)
    after = rest.split(END)[1]
    table = "\n".join(lines)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")


def save_figure(figure, name):
    """Write a picture of the page."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / f"{name}.png", dpi=130)
