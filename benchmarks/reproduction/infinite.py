"""The poster's Tables 3 to 8: what kernels of infinite width tell before any training.

One claim at a time: ``refurbishment`` (Table 8), ``schemes`` (Tables 4 to 6), ``entanglement``
(Table 7), ``architecture`` (Table 3); N = 2,000 samples unless ``--n-train`` says otherwise.
"""

import warnings

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.preprocessing import normalize
from torch import nn

from sklearn_lpntk.infinite import (
    ArchitectureSelector,
    InfiniteWidthConvNTK,
    InfiniteWidthNTK,
    LabelRefurbisher,
    class_entanglement,
    compare_label_schemes,
    rank_biased_overlap,
)
from sklearn_lpntk.kernels import pntk_kernel

from .data import load
from .records import FOLDER, Records, arguments, seeds_of
from .report import write_row

DATASETS = ("digits", "mnist", "cifar")
N_TRAIN = 2000
N_STEPS = 1000  # of the networks that the rankings are compared with
NOISES = (0.1, 0.2, 0.3, 0.7)
LEVELS = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
RULES = {  # options of the refurbisher; "known": as many flips as there are wrong labels
    "leave-one-out": ({"min_margin": 0.0}, "known"),
    "Algorithm 1": ({"method": "gradient", "min_margin": -np.inf}, "known"),
    "margin .3": ({"min_margin": 0.3}, None),
}
ASYMMETRIC = {7: 1, 3: 8}


def drawn(data, seed, n):
    """Rows of a draw, flat, and their labels."""
    X, y = data[:2]
    rows = np.random.default_rng([seed, 11]).permutation(len(X))[:n]
    return X[rows].reshape(len(rows), -1), y[rows]


def with_noise(y, share, seed, *, kind="symmetric"):
    """Labels of which some are wrong, and which; asymmetric: a share of two classes only."""
    rng = np.random.default_rng([seed, 12])
    noisy = y.copy()
    if kind == "symmetric":
        wrong = rng.permutation(len(y))[: round(share * len(y))]
        noisy[wrong] = (y[wrong] + rng.integers(1, 10, len(wrong))) % 10
        return noisy, wrong
    for old, new in ASYMMETRIC.items():
        mine = rng.permutation(np.flatnonzero(y == old))
        noisy[mine[: round(share * len(mine))]] = new
    return noisy, np.flatnonzero(noisy != y)


def refurbishment(data, seed, n):
    """One row for each noise and rule; pixels from 0 to 1, samples of unit norm."""
    X, y = drawn(data, seed, n)
    H = InfiniteWidthNTK()(normalize((X + 1) / 2))
    settings = [("symmetric", s) for s in (0.0, *NOISES)] + [("asymmetric", 0.3)]
    for kind, share in settings:
        noisy, wrong = with_noise(y, share, seed, kind=kind)
        for rule, (options, budget) in RULES.items():
            n_flips = len(wrong) if budget else None
            found = LabelRefurbisher("precomputed", max_iter=n_flips, **options).fit(H, noisy)
            is_right = found.labels_ == y
            yield {
                "kind": kind,
                "noise": share,
                "rule": rule,
                "restored": float(is_right[wrong].mean()) if len(wrong) else None,
                "right_before": float((noisy == y).mean()),
                "right_after": float(is_right.mean()),
                "touched": len(found.flips_) / len(y),
                "agreement": found.loo_accuracy_,
            }


def schemes(data, seed, n):
    """The error at rising noise, for two ridges; and what a network makes of the same labels."""
    X, y = drawn(data, seed, n)
    H = InfiniteWidthNTK()(X)
    labels = [with_noise(y, level, seed)[0] for level in LEVELS]
    losses = [training_loss(X, noisy, seed) for noisy in labels]
    for ridge in (0.01, 0.1):
        errors = compare_label_schemes(H, labels, ridge=ridge).errors
        yield {
            "ridge": ridge,
            "errors": errors.tolist(),
            "losses": losses,
            "rank_correlation": spearmanr(errors, losses).statistic,
        }


def training_loss(X, y, seed):
    """Mean loss of all samples over a network's training: high is hard to learn."""
    X, y = torch.as_tensor(X), torch.as_tensor(y)
    losses = []
    for net in trained(X, y, seed, n_steps=N_STEPS // 2):
        with torch.no_grad():
            losses.append(nn.functional.cross_entropy(net(X), y).item())
    return float(np.mean(losses))


def entanglement(data, seed, n):
    """Rankings by the kernel and by two networks, and by chance.

    Each is compared with the first network's rankings twice: by its losses and confusions while it
    learns, and by the entanglement under its own tangent kernel once it is trained.
    """
    X, y = drawn(data, seed, n)
    A, a = drawn(data, seed, 2 * min(10_000, len(data[0]) // 2))
    half = len(A) // 2
    parts = A[:half], a[:half], A[half:], a[half:]
    (net, behaviour), (other, other_behaviour) = (learned(*parts, seed=k) for k in (0, 1))
    own, other_own = (rankings(pntk_kernel(m, X), y) for m in (net, other))
    rng = np.random.default_rng([seed, 13])
    rows = [np.delete(np.arange(10), k) for k in range(10)]
    chance = [(rng.permutation(10), [rng.permutation(o) for o in rows]) for _ in range(100)]
    here = rankings(InfiniteWidthNTK()(X), y)
    for name, truth, peer in (
        ("behaviour", behaviour, other_behaviour),
        ("own kernel", own, other_own),
    ):
        yield {
            "reference": name,
            "kernel": _overlaps(here, truth),
            "other_seed": _overlaps(peer, truth),
            "random": np.mean([_overlaps(c, truth) for c in chance], axis=0).tolist(),
        }


def rankings(H, y):
    """Of all classes, and for each class of the others."""
    found = class_entanglement(H, y)
    return found.intra_ranking, found.inter_rankings


def _overlaps(a, b):
    """Of the rankings of all classes, and the mean over those for each class."""
    inter = [rank_biased_overlap(p, q) for p, q in zip(a[1], b[1], strict=True)]
    return [rank_biased_overlap(a[0], b[0]), float(np.mean(inter))]


def trained(X, y, seed, *, n_steps, n_looks=10, width=512):
    """A network on its way: yields it ten times while it is trained."""
    torch.manual_seed(seed)
    hidden = nn.Linear(X.shape[1], width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
    net = nn.Sequential(*hidden, nn.Linear(width, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for step in range(1, n_steps + 1):
        rows = torch.randint(0, len(y), (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(X[rows]), y[rows]).backward()
        optimizer.step()
        if step % (n_steps // n_looks) == 0:
            yield net


def learned(X, y, X_test, y_test, *, seed):
    """A trained network; classes by mean loss, others by mean probability, while it learned."""
    X, y, X_test = (torch.as_tensor(a) for a in (X, y, X_test))
    loss, confused = np.zeros(10), np.zeros((10, 10))
    for net in trained(X, y, seed, n_steps=N_STEPS):
        with torch.no_grad():
            log_proba = torch.log_softmax(net(X_test), 1).double().numpy()
        for k in range(10):
            loss[k] -= log_proba[y_test == k, k].mean()
            confused[k] += np.exp(log_proba[y_test == k]).mean(0)
    np.fill_diagonal(confused, -1)
    return net.eval(), (np.argsort(-loss), np.argsort(-confused, axis=1)[:, :-1])


def architecture(data, seed, n):
    """Distance ratios of three architectures, in leading and trailing components."""
    shape, few = data[0].shape[1:], min(n, 400)
    for name, kernel, size in (
        ("2-L", InfiniteWidthNTK(2), n),
        ("2-L", InfiniteWidthNTK(2), few),
        ("10-L", InfiniteWidthNTK(10), few),
        ("CNN-2", InfiniteWidthConvNTK(2, image_shape=shape, dtype="float32"), few),
    ):
        X, y = drawn(data, seed, size)
        row = {"architecture": name, "n": len(X)}
        for which in ("leading", "trailing"):
            selector = ArchitectureSelector([(name, kernel)], components=which).fit(X, y)
            P = selector.transform(X)
            shuffled = np.random.default_rng([seed, 14]).permutation(y)
            row[which] = selector.scores_[0]
            row[f"{which}_triplets"] = triplet_ratios(P, y, seed)
            row[f"{which}_shuffled"] = triplet_ratios(P, shuffled, seed)
        yield row


def triplet_ratios(P, y, seed, n=400_000):
    """Mean and standard deviation of distances to another class over those to the own class."""
    i, j, k = np.random.default_rng([seed, 15]).integers(0, len(y), (3, n))
    rows = (y[i] == y[j]) & (i != j) & (y[i] != y[k])
    i, j, k = i[rows], j[rows], k[rows]
    ratios = np.linalg.norm(P[i] - P[k], axis=1) / np.linalg.norm(P[i] - P[j], axis=1)
    return [float(ratios.mean()), float(ratios.std())]


CLAIMS = {f.__name__: f for f in (refurbishment, schemes, entanglement, architecture)}


def main():
    parser = arguments(__doc__, DATASETS, seeds=4, n_train=N_TRAIN)
    parser.add_argument("claim", choices=CLAIMS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    name, claim = options.dataset, options.claim
    key = f"infinite_{claim}_{name}"
    if options.n_train != N_TRAIN:
        key += f"_{options.n_train}"
    records = Records(options.out or FOLDER / f"{key}.jsonl", ("seed",))
    if not options.report:
        warnings.filterwarnings("ignore", ".*labels were changed")
        data = load(name, options.cifar)
        for seed in seeds_of(options):
            if {"seed": seed} not in records:
                rows = list(CLAIMS[claim](data, seed, options.n_train))
                records.append({"seed": seed, "n": options.n_train, "rows": rows})
    text = REPORTS[claim](name, [r["rows"] for r in records.rows])
    if options.n_train != N_TRAIN:
        text["claim"] += f"; N = {options.n_train:,}"
    print(text)
    if not options.out:
        write_row(key, **text)


# -- the page -----------------------------------------------------------------------------

POSTER = {
    "refurbishment": {"mnist": "83.5, 85.0, 85.7, 25.2", "cifar": "9.0, 13.0, 16.2, 11.5"},
    "entanglement": {"mnist": ".962 intra, .904 inter", "cifar": ".734 intra, .916 inter"},
    "architecture": {
        "mnist": "2-L 2.73 (sd 25.3), CNN-2 3.79 (sd 33.8), trailing",
        "cifar": "2-L 1.18 (sd 2.2), CNN-2 1.19 (sd 2.1), trailing",
    },
}
NOT_THERE = "(not on the poster)"
REFERENCES = {
    "behaviour": "losses and confusions while it learns",
    "own kernel": "Z of its own kernel, trained",
}


def report_refurbishment(name, draws):
    def mean(key, **wanted):
        values = [r[key] for rows in draws for r in rows if wanted.items() <= r.items()]
        return 100 * np.mean(values), 100 * np.std(values, ddof=1) if len(values) > 1 else 0.0

    parts, restored = [], {}
    for rule in ("leave-one-out", "Algorithm 1"):
        values = [mean("restored", kind="symmetric", noise=s, rule=rule) for s in NOISES]
        restored[rule] = [m for m, _ in values]
        parts.append(f"**{rule}** " + ", ".join(f"{m:.1f} ({sd:.1f})" for m, sd in values))
    asymmetric = mean("restored", kind="asymmetric", rule="leave-one-out")[0]
    parts.append(f"30 % of 7→1 and 3→8 wrong: {asymmetric:.1f} restored")
    before, after = (
        [mean(key, kind="symmetric", noise=s, rule="margin .3")[0] for s in (0.0, *NOISES)]
        for key in ("right_before", "right_after")
    )
    changes = [f"{b:.0f}→{a:.1f}" for b, a in zip(before, after, strict=True)]
    agreement = mean("agreement", kind="symmetric", noise=0.0, rule="margin .3")[0]
    parts.append(
        f"labels that are right, before → after stopping at margin .3: {', '.join(changes)}; "
        f"leave-one-out agrees with {agreement:.0f} % of right labels"
    )
    harm = [f"{s:.0%}" for s, b, a in zip((0.0, *NOISES), before, after) if a < b]
    verdict = (
        f"repairing does harm at {', '.join(harm)} noise" if harm else "repairing does no harm"
    )
    if name in POSTER["refurbishment"]:
        poster = [float(v) for v in POSTER["refurbishment"][name].split(",")]
        reached = {r: sum(m >= p for m, p in zip(v, poster)) for r, v in restored.items()}
        of_all = ", ".join(f"{r} at {n}" for r, n in reached.items())
        verdict += f"; as many labels restored as on the poster, or more: {of_all} of {len(poster)}"
    return {
        "claim": "Poster, Table 8: wrong labels restored at 10, 20, 30, 70 % noise, in %, as many "
        f"flips as there are wrong labels; {name.upper()}, {len(draws)} draws (sd)",
        "paper": POSTER["refurbishment"].get(name, NOT_THERE),
        "here": "; ".join(parts),
        "verdict": verdict,
    }


def report_schemes(name, draws):
    parts = []
    for k, ridge in enumerate((0.01, 0.1)):
        errors = np.array([rows[k]["errors"] for rows in draws])
        rising = (np.diff(errors, axis=1) > 0).all(axis=1).sum()
        growth = (errors[:, -1] / errors[:, 0]).mean()
        parts.append(
            f"ridge {ridge:g}: rising at every step in {rising} of {len(draws)} draws, "
            f"{growth:.1f} times from 0 to 90 %"
        )
    every = all((np.diff(r["errors"]) > 0).all() for rows in draws for r in rows)
    agreement = [r["rank_correlation"] for rows in draws for r in rows]
    parts.append(f"rank correlation with a network's training loss at least {min(agreement):.3f}")
    verdict = "rises with noise and with training loss" if every else "not in every draw"
    return {
        "claim": "Poster, Tables 4 to 6: the error ranks labellings by their noise (0, 1, 2, 5, "
        f"10, 20, 30, 50, 70, 90 %), and as training does; {name.upper()}",
        "paper": "five schemes ranked as by training" if name != "digits" else NOT_THERE,
        "here": "; ".join(parts),
        "verdict": verdict + (": reproduced" if every and name != "digits" else ""),
    }


def report_entanglement(name, draws):
    parts, gains = [], []
    for k, reference in enumerate(r["reference"] for r in draws[0]):
        found = {
            who: np.mean([rows[k][who] for rows in draws], axis=0)
            for who in ("kernel", "other_seed", "random")
        }
        texts = {
            who: f"{intra:.3f} intra, {inter:.3f} inter" for who, (intra, inter) in found.items()
        }
        parts.append(
            f"**{REFERENCES[reference]}** {texts['kernel']}; another seed of the network: "
            f"{texts['other_seed']}; random rankings: {texts['random']}"
        )
        gains.append((found["kernel"] - found["random"]) / (found["other_seed"] - found["random"]))
    (_, confusions), (own, own_inter) = gains
    return {
        "claim": "Poster, Table 7: classes are ranked as by training (RBO, p = .9); "
        f"{name.upper()}, {len(draws)} draws",
        "paper": POSTER["entanglement"].get(name, NOT_THERE),
        "here": "; ".join(parts),
        "verdict": "share of what another seed is above chance: "
        f"losses {gains[0][0]:.0%}, confusions {confusions:.0%}; own kernel {own:.0%}, "
        f"{own_inter:.0%}",
    }


def report_architecture(name, draws):
    parts = []
    for k, first in enumerate(draws[0]):
        keys = ("leading", "trailing", "trailing_triplets", "trailing_shuffled")
        found = {key: np.mean([rows[k][key] for rows in draws], axis=0) for key in keys}
        parts.append(
            f"{first['architecture']} (N = {first['n']:,}) {found['leading']:.2f} leading, "
            f"{found['trailing']:.2f} trailing; ratios of single triplets, trailing: "
            "{:.1f} (sd {:.0f})".format(*found["trailing_triplets"])
            + ", labels shuffled: {:.1f} (sd {:.0f})".format(*found["trailing_shuffled"])
        )
    return {
        "claim": f"Poster, Table 3: distances between classes over those within, in 4 components; "
        f"{name.upper()}, {len(draws)} draws",
        "paper": POSTER["architecture"].get(name, NOT_THERE),
        "here": "; ".join(parts),
        "verdict": "trailing components separate nothing; means of single triplets, those of "
        "shuffled labels too, are large by a few near pairs",
    }


REPORTS = {
    "refurbishment": report_refurbishment,
    "schemes": report_schemes,
    "entanglement": report_entanglement,
    "architecture": report_architecture,
}


if __name__ == "__main__":
    main()
