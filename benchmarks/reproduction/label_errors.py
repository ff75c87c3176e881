"""Wrong labels found and repaired, beside cleanlab on four classifiers.

cleanlab takes out-of-sample probabilities of any classifier, here by five-fold cross-validation;
what it finds gets the most probable class. `LabelRefurbisher` at its defaults needs no folds. No
method is told how many labels are wrong. Install cleanlab by ``pip install -e '.[bench]'``.
"""

import time
import warnings

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import cross_val_predict
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

from sklearn_lpntk.infinite import InfiniteWidthNTK, LabelRefurbisher

from .data import load
from .infinite import drawn, with_noise
from .records import FOLDER, Records, arguments, seeds_of
from .report import PAGE, write_row

DATASETS = ("digits", "mnist", "cifar")
NOISES = (0.0, 0.1, 0.2, 0.3, 0.7)
KEYS = ("seed", "noise", "method")


def refurbished(X, y):
    return LabelRefurbisher().fit_refurbish(X, y)


def by_cleanlab(classifier):
    """The labels that cleanlab suggests from a classifier's out-of-sample probabilities."""

    def repaired(X, y):
        from cleanlab.filter import find_label_issues

        proba = cross_val_predict(classifier, X, y, cv=5, method="predict_proba")
        is_wrong = find_label_issues(y, proba, n_jobs=1)
        return np.where(is_wrong, proba.argmax(axis=1), y)

    return repaired


def rbf(X, Y):
    """The kernel of ``SVC(gamma="scale")``, as matrix products; Y are the training samples."""
    return rbf_kernel(X, Y, gamma=1 / (Y.shape[1] * Y.var()))


def with_probabilities(kernel):
    """By Platt's method for each pair of classes; calibrating each class alone does worse here."""
    return SVC(kernel=kernel, probability=True, random_state=0)


METHODS = {
    "as given": lambda X, y: y,
    "LabelRefurbisher": refurbished,
    "cleanlab, logistic": by_cleanlab(LogisticRegression(max_iter=200)),
    "cleanlab, MLP": by_cleanlab(MLPClassifier(256, early_stopping=True, random_state=0)),
    "cleanlab, RBF SVC": by_cleanlab(with_probabilities(rbf)),
    "cleanlab, NTK SVC": by_cleanlab(with_probabilities(InfiniteWidthNTK())),
}


def measured(method, X, y, noisy):
    """What a method makes of noisy labels."""
    start = time.process_time()
    labels = METHODS[method](X, noisy)
    seconds = time.process_time() - start
    is_wrong, found = noisy != y, labels != noisy
    return {
        "right": float((labels == y).mean()),
        "restored": float((labels == y)[is_wrong].mean()) if is_wrong.any() else None,
        "found": float(found.mean()),
        "precision": float(is_wrong[found].mean()) if found.any() else None,
        "recall": float(found[is_wrong].mean()) if is_wrong.any() else None,
        "cpu_s": round(seconds, 2),
    }


def main():
    parser = arguments(__doc__, DATASETS, seeds=4, n_train=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", ".*labels were changed")
    warnings.filterwarnings("ignore", "lbfgs failed to converge")
    warnings.filterwarnings("ignore", "The `probability` parameter")
    name = options.dataset
    records = Records(options.out or FOLDER / f"label_errors_{name}.jsonl", KEYS)
    if not options.report:
        data = load(name, options.cifar)
        for seed in seeds_of(options):
            X, y = drawn(data, seed, options.n_train)
            for noise in NOISES:
                noisy, _ = with_noise(y, noise, seed)
                for method in METHODS:
                    row = dict(zip(KEYS, (seed, noise, method), strict=True))
                    if row not in records:
                        records.append(row | measured(method, X, y, noisy))
    print(tables(records.rows))
    if not options.out:
        (PAGE.parent / f"label_errors_{name}.txt").write_text(tables(records.rows))
        write_row(f"label_errors_{name}", **summary(name, records.rows))


# -- the page -----------------------------------------------------------------------------

COLUMNS = {
    "right": "labels that are right afterwards, %",
    "restored": "wrong labels restored, %",
    "precision": "changed labels that were wrong, %",
}


def values_of(rows, method, noise, key):
    """In percent, one value a draw; those that are undefined are left out."""
    wanted = [r[key] for r in rows if (r["method"], r["noise"]) == (method, noise)]
    return [100 * v for v in wanted if v is not None]


def tables(rows):
    """Means over the draws and standard deviations as text; the best mean of a column starred."""
    noises = sorted({r["noise"] for r in rows})
    n_draws = len({r["seed"] for r in rows})
    blocks = []
    for key, title in COLUMNS.items():
        methods = [m for m in METHODS if key == "right" or m != "as given"]
        shares = [s for s in noises if key == "right" or s > 0]
        cells = {(m, s): values_of(rows, m, s, key) for m in methods for s in shares}
        best = {s: max(np.mean(cells[m, s] or [-1]) for m in methods) for s in shares}
        lines = [f"{title} ({n_draws} draws)", "wrong".ljust(20) + _row(f"{s:.0%}" for s in shares)]
        for m in methods:
            texts = (_cell(cells[m, s], best[s]) for s in shares)
            lines.append(m.ljust(20) + _row(texts))
        blocks.append("\n".join(lines))
    seconds = {m: np.mean([r["cpu_s"] for r in rows if r["method"] == m]) for m in METHODS}
    times = ", ".join(f"{m} {t:.1f}" for m, t in seconds.items() if m != "as given")
    return "\n\n".join([*blocks, f"CPU seconds, mean over the columns: {times}"]) + "\n"


def _row(texts):
    return "".join(t.rjust(14) for t in texts)


def _cell(values, best):
    if not values:
        return ""
    sd = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):.1f} ({sd:.1f})" + ("*" if np.mean(values) == best else " ")


def summary(name, rows):
    """A row of the page."""
    noises = sorted({r["noise"] for r in rows})
    means = {m: [np.mean(values_of(rows, m, s, "right")) for s in noises] for m in METHODS}
    ours = means["LabelRefurbisher"]
    others = np.array([v for m, v in means.items() if m.startswith("cleanlab")])
    above = int((ours > others.max(axis=0)).sum())
    harm = int((np.array(ours) < means["as given"])[1:].sum())
    texts = (f"**{m}** " + ", ".join(f"{v:.1f}" for v in values) for m, values in means.items())
    share = ", ".join(f"{s:.0%}" for s in noises)
    return {
        "claim": f"Beside cleanlab: labels that are right afterwards, in %, at {share} noise; "
        f"{name.upper()}, {len({r['seed'] for r in rows})} draws",
        "paper": "(not on the poster)",
        "here": "; ".join(texts),
        "verdict": f"best of all at {above} of {len(noises)} noise levels"
        + (f"; worse than doing nothing at {harm} of {len(noises) - 1}" if harm else ""),
    }


if __name__ == "__main__":
    main()
