"""All strategies by name, and what each of them needs."""

from dataclasses import dataclass

import numpy as np
import torch

from . import _orders, _published
from ._samples import Ordering


@dataclass(frozen=True)
class Strategy:
    """A strategy's function and what it needs.

    ``needs_net`` and ``needs_numbers`` say what of X and a network it looks at, ``compares``
    whether by the kernel of pairs, ``needs_dynamics`` whether at the training of the net, and
    ``regresses`` whether it predicts labels from the features, which must not know them by heart.
    """

    order: callable
    needs_net: bool = True
    needs_numbers: bool = True
    compares: bool = False
    has_auto: bool = False
    clusters: bool = False
    needs_dynamics: bool = False
    regresses: bool = False


STRATEGIES = {
    "herding": Strategy(_orders.herding, compares=True),
    "coverage": Strategy(_orders.coverage, compares=True),
    "clean_herding": Strategy(_orders.clean_herding, compares=True, regresses=True),
    "clean_coverage": Strategy(_orders.clean_coverage, compares=True, regresses=True),
    "redundant": Strategy(_orders.redundant, compares=True, has_auto=True),
    "head": Strategy(_orders.head, compares=True, has_auto=True, clusters=True),
    "redundant+head": Strategy(_orders.redundant_head, compares=True, has_auto=True, clusters=True),
    "keep_head": Strategy(_orders.keep_head, compares=True, clusters=True),
    "random": Strategy(_orders.random, needs_net=False, needs_numbers=False),
    "el2n": Strategy(_orders.el2n),
    "grand": Strategy(_orders.grand),
    "k_center": Strategy(_orders.k_center),
    "k_center_input": Strategy(_orders.k_center_input, needs_net=False),
    "aum": Strategy(_published.aum, needs_dynamics=True),
    "ccs": Strategy(_published.ccs, needs_dynamics=True),
    "d2": Strategy(_published.d2, needs_dynamics=True),
    "forgetting": Strategy(_published.forgetting, needs_dynamics=True),
    "small_loss": Strategy(_published.small_loss, needs_dynamics=True),
    "moderate": Strategy(_published.moderate),
    "net_clean_random": Strategy(_published.net_clean_random),
    "loo_infinite": Strategy(_published.loo_infinite, needs_net=False),
    "loo_rbf": Strategy(_published.loo_rbf, needs_net=False),
}
CANDIDATES = "herding", "clean_herding", "random"


def strategy_of(given):
    """The strategy of a name, or of a function ``(samples) -> order``."""
    if not callable(given):
        return STRATEGIES[given]
    return Strategy(Given(given))


class Given:
    """The order that a caller's function returns, checked."""

    def __init__(self, function):
        self.function = function

    def __call__(self, samples):
        found, n = self.function(samples), len(samples)
        if isinstance(found, torch.Tensor):
            found = found.detach().cpu()
        try:
            order = np.asarray(found)
        except ValueError:  # lists of different lengths
            order = np.array(found, dtype=object)
        wrong = _what_is_wrong(order, n)
        if wrong is not None:
            part = "" if samples.whole is None else PART.format(n, len(samples.whole))
            raise ValueError(
                f"strategy={name_of(self.function)} must return all rows from 0 to {n - 1}, each "
                f"once, the first to go first; it returned {wrong}.{part}"
            )
        return Ordering(order.astype(np.int64))


PART = (
    " To compare strategies a function is given those {} of the {} rows that are not held out: "
    "len(samples) of them, samples.rows of the X that was passed."
)


def _what_is_wrong(order, n):
    """What of an order is no order of n rows; None where it is one."""
    if order.shape != (n,):
        return f"{order!r:.80} of shape {order.shape}"
    if order.dtype.kind not in "iu":
        return f"{order!r:.80} of dtype {order.dtype}"
    rows, counts = np.unique(order, return_counts=True)
    if (counts > 1).any():
        return f"row {rows[np.argmax(counts)]} {counts.max()} times"
    outside = rows[(rows < 0) | (rows >= n)]
    return f"row {outside[0]}" if len(outside) else None


def name_of(strategy):
    """What a strategy is called."""
    if isinstance(strategy, str):
        return strategy
    if isinstance(strategy, list | tuple):
        return " or ".join(map(name_of, strategy))
    name = getattr(strategy, "__name__", type(strategy).__name__)
    return f"{name} (callable)" if name in STRATEGIES else name
