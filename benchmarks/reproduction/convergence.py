"""Theorem 1: the labelled kernel against the full one as the last layer grows wider.

Nets of one and of two hidden layers of one width, last weights of variance 1 / width as the
theorem has them, a few digits of four classes; pairs of equal and of different labels apart.
"""

import argparse
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from sklearn_lpntk.dynamics import entk_convergence

from .data import load
from .records import FOLDER, Records
from .report import save_figure, write_row

WIDTHS = (64, 128, 256, 512, 1024)


def make_module(width, n_hidden):
    """LeCun's initialisation everywhere, no bias in the last layer."""
    net, n_in = nn.Sequential(nn.Flatten()), 64
    for _ in range(n_hidden):
        net.extend([nn.Linear(n_in, width), nn.ReLU()])
        n_in = width
    net.append(nn.Linear(n_in, 4, bias=False))
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    return net


def run(records, *, n_repeats, n_samples):
    """One row for each depth."""
    X, y = load("digits")[:2]
    rows = np.flatnonzero(y < 4)[:n_samples]
    for n_hidden in (1, 2):
        key = {"n_hidden": n_hidden, "n_repeats": n_repeats, "n_samples": n_samples}
        if key in records:
            continue
        make = partial(make_module, n_hidden=n_hidden)
        found = entk_convergence(
            make, X[rows], y[rows], WIDTHS, n_repeats=n_repeats, random_state=0
        )
        found = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in found.items()}
        records.append(key | found)


def exponent(row, kind):
    return f"{row[f'exponent_{kind}_label']:.2f} ± {row[f'stderr_{kind}_label']:.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--out", help="file of the raw numbers; then no page is written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keys = ("n_hidden", "n_repeats", "n_samples")
    records = Records(options.out or FOLDER / "convergence.jsonl", keys)
    run(records, n_repeats=options.repeats, n_samples=options.samples)
    lines = [
        f"{row['n_hidden']} hidden layer(s): equal labels width^({exponent(row, 'same')}), "
        f"different labels width^({exponent(row, 'different')})"
        for row in records.rows
    ]
    print("\n".join(lines))
    if options.out:
        return
    draw(records.rows)
    write_row(
        "convergence",
        claim="Theorem 1: the distance of lpNTK and eNTK, divided by the root of the width, "
        "vanishes as its power −1/2",
        paper="O(width^(−1/2)), with high probability",
        here="; ".join(lines),
        verdict="holds for equal labels and one hidden layer; with two, the theorem's constant "
        "grows with the width; for different labels the distance grows",
    )


def draw(rows):
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
    for ax, row in zip(axes, rows, strict=True):
        for kind, color, marker in (("same", "#0072B2", "o"), ("different", "#D55E00", "s")):
            values = np.array(row[f"{kind}_label"])
            mean, sd = values.mean(axis=1), values.std(axis=1, ddof=1)
            style = {"color": color, "marker": marker, "capsize": 3}
            label = f"{kind} label: exponent {exponent(row, kind)}"
            ax.errorbar(row["widths"], mean, sd, label=label, **style)
        ax.set(xscale="log", yscale="log", xlabel="width", ylabel="‖κ I − K‖ / √width")
        ax.set_title(f"{row['n_hidden']} hidden layer(s), mean over pairs, ± 1 sd over nets")
        ax.legend()
    save_figure(figure, "convergence")


if __name__ == "__main__":
    main()
