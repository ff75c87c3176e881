"""Random networks against the oracle: ``python -m tests.random_nets --nets 2000``.

Sizes often are those of batches, so that code which guesses the axis of the samples by its length
is caught. A network is wrong where its kernel differs from one backward pass a sample, and
refused where the engine raises ``ValueError``.
"""

import argparse
import ast
import collections
import copy
import json
import math
import random
import time
import traceback
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from sklearn_lpntk.exceptions import AutogradRuleWarning
from sklearn_lpntk.kernels import empirical_ntk

from .oracle import oracle_features
from .random_blocks import STARTS, VOCABULARY, Draw

KERNELS = ("lpntk", "pntk", "loss_gradient", "entk")
MOST_PARAMETERS = 3000


def random_net(seed):
    """A module in float64 and evaluation mode, its data, and the number of its logits.

    Its attribute ``kinds`` names the blocks; a parameter's name begins with its block's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for attempt in range(100):
            net, X, n_logits = _drawn(f"{seed}/{attempt}")
            if sum(p.numel() for p in net.parameters()) < MOST_PARAMETERS:
                return net, X, n_logits
    raise RuntimeError(f"seed {seed} makes no small network")


def _drawn(key):
    draw = Draw(key, random.Random(key).randint(1, 8))
    X, layers, shape = _start(draw)
    for _ in range(draw.of(1, 2, 3, 4, 6)):
        layer, shape = draw.block(*shape)
        layers.append((draw.kinds[-1], layer))
        if math.prod(shape) > 100:
            break
    n_logits = draw.of(1, 2, 3, max(2, draw.n))
    layers += [("flatten", nn.Flatten()), ("head", nn.Linear(math.prod(shape), n_logits))]
    named = collections.OrderedDict(
        (f"{k}_{kind}", layer) for k, (kind, layer) in enumerate(layers)
    )
    net = nn.Sequential(named).double().eval()
    net.kinds = draw.kinds
    return net, X, n_logits


def _start(draw):
    """Data, and the first layer, which keeps a parameter in front of most blocks."""
    mode = draw.of(1, 1, 2, 2, 3, "tokens")
    if mode == "tokens":
        T, kind = draw.size(5), draw.of(*STARTS)
        draw.kinds.append(kind)
        layer, shape = STARTS[kind](draw, T)
        return torch.randint(0, VOCABULARY, (draw.n, T)), [(kind, layer)], shape
    shape = tuple(draw.size(5) for _ in range(mode))
    first = [("first", nn.Linear(shape[-1], shape[-1]))] if draw.yes() else []
    return torch.randn(draw.n, *shape, dtype=torch.float64), first, shape


@dataclass
class Options:
    """How the kernel of a network is asked for."""

    kernel: str
    batch_size: int | str
    X2: torch.Tensor | None


def random_options(seed, X):
    """A kernel, a batch size, and data for the columns (or None)."""
    draw = random.Random(f"options {seed}")
    batch_size = draw.choice(["auto", 1, 2, 3, len(X)])
    kernel, n = draw.choice(KERNELS), draw.choice([None, None, 1, draw.randint(2, 9)])
    generator = torch.Generator().manual_seed(seed)
    X2 = None
    if n is not None:
        index = torch.randint(0, X.numel(), (n, *X.shape[1:]), generator=generator)
        X2 = X.flatten()[index]
        if X.is_floating_point():
            X2 = X2 + torch.randn(X2.shape, generator=generator, dtype=X.dtype)
    return Options(kernel, batch_size, X2)


@dataclass
class Outcome:
    """What became of one network: its relative error, or an exception, and slow parameters."""

    seed: int
    kinds: list
    options: str
    error: float | None = None
    raised: str | None = None
    refused: bool = False
    slow: list = field(default_factory=list)


def labels(X, n_logits):
    """Labels of all classes in turn."""
    return torch.arange(len(X)) % max(n_logits, 2)


def compare(seed):
    """The engine against the oracle on one random network: an `Outcome`."""
    net, X, n_logits = random_net(seed)
    how = random_options(seed, X)
    shapes = tuple(X.shape), None if how.X2 is None else len(how.X2)
    outcome = Outcome(seed, net.kinds, f"{how.kernel}, {how.batch_size}, X {shapes}")
    expected = _expected(net, X, how, n_logits)
    try:
        found, outcome.slow = _found(net, X, how, n_logits)
        outcome.error = relative_error(found, expected)
    except Exception as error:
        outcome.refused = isinstance(error, ValueError) and "logits differ" in str(error)
        at = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{at.filename.split('/')[-1]}:{at.lineno}"
        outcome.raised = f"{type(error).__name__}: {str(error)[:300]} ({where})"
    return outcome


def _expected(net, X, how, n_logits):
    net = copy.deepcopy(net)
    phi = oracle_features(net, X, labels(X, n_logits), how.kernel)
    other = phi
    if how.X2 is not None:
        other = oracle_features(net, how.X2, labels(how.X2, n_logits), how.kernel)
    return phi @ other.T


def _found(net, X, how, n_logits):
    """The engine's kernel, and the parameters that it has no rule for."""
    y2 = None if how.X2 is None else labels(how.X2, n_logits)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AutogradRuleWarning)
        operator = empirical_ntk(
            net,
            X,
            labels(X, n_logits),
            X2=how.X2,
            y2=y2,
            kernel=how.kernel,
            batch_size=how.batch_size,
        )
        found = torch.from_numpy(operator.toarray())
    texts = [str(w.message) for w in caught if w.category is AutogradRuleWarning]
    slow = [name for t in texts for name in ast.literal_eval(t[t.index("[") : t.index("]") + 1])]
    return found, slow


def relative_error(found, expected):
    """Of the whole kernel, in the Frobenius norm."""
    return float((found - expected).norm() / expected.norm().clamp(min=1e-12))


def is_wrong(outcome, tolerance=1e-10):
    """Whether a kernel was computed, and is not the oracle's."""
    return outcome.error is not None and not outcome.error <= tolerance


def summary(outcomes):
    """What is printed at the end."""
    kinds = collections.Counter(kind for o in outcomes for kind in set(o.kinds))
    slow = collections.Counter(_block_of(name) for o in outcomes for name in o.slow)
    lines = [f"{len(outcomes)} networks", "kinds:"]
    lines += [f"  {count:5d} {kind}" for kind, count in kinds.most_common()]
    lines += [
        f"networks with parameters on the autograd rule: {sum(bool(o.slow) for o in outcomes)}"
    ]
    lines += [f"  {count:5d} {kind}" for kind, count in slow.most_common()]
    for title, chosen in (
        ("wrong", [o for o in outcomes if is_wrong(o)]),
        ("refused", [o for o in outcomes if o.refused]),
        ("crashed", [o for o in outcomes if o.raised and not o.refused]),
    ):
        lines += [f"{title}: {len(chosen)}", *(f"  {_line(o)}" for o in chosen)]
    return "\n".join(lines)


def _block_of(name):
    return name.split(".")[0].split("_", 1)[-1]


def _line(outcome):
    result = outcome.raised or f"error {outcome.error:.2e}"
    return f"seed {outcome.seed}: {result} [{outcome.options}] {', '.join(outcome.kinds)}"


def main():
    """Run seeds from ``start`` on for at most so many seconds; results go to a file at once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", type=int, default=2000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--out", default="artifacts/random_nets.jsonl")
    options = parser.parse_args()
    torch.set_num_threads(1)
    begin, outcomes = time.perf_counter(), []
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    with open(options.out, "a") as file:
        for seed in range(options.start, options.start + options.nets):
            if time.perf_counter() - begin > options.seconds:
                print(f"out of time; go on with --start {seed}")
                break
            outcomes.append(compare(seed))
            print(json.dumps(asdict(outcomes[-1])), file=file, flush=True)
    print(summary(outcomes))


if __name__ == "__main__":
    main()
