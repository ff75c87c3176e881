"""Train the scoring net and order the samples, each found in the cache where it was done."""

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from .._runtime.cache import cached
from .._skorch.labels import ColumnEncoder
from .._skorch.nets import net_input, trained
from ._orders import STRATEGIES
from ._samples import Ordering, Samples


@dataclass
class Scored:
    """What scoring found out.

    Attributes
    ----------
    net : skorch net, as it was given
    net_seed : int
        Of its weights and batches.
    trained : fitted skorch net, or None for a strategy that needs none
    array, y : ndarray of shape (n_samples, ...) and (n_samples,)
    encoder : ColumnEncoder of the net, or None for a strategy that needs no net
    classes : ndarray of shape (n_classes,)
    ordering : Ordering
    kept : ndarray of shape (n_samples,), bool, or None before a fraction is chosen
    """

    net: object
    net_seed: int
    trained: object
    array: np.ndarray
    y: np.ndarray
    encoder: ColumnEncoder | None
    classes: np.ndarray
    ordering: Ordering
    kept: np.ndarray | None = None


def score_samples(net, X, y, strategy, options, cost_options, *, seed, memory, progress):
    """Train the net where the strategy needs one, and order the samples by the strategy.

    ``options`` are what the order depends on, ``cost_options`` change only what it costs.
    """
    seeds = np.random.SeedSequence(int(seed)).spawn(3)
    net_seed, rng = int(seeds[0].generate_state(1)[0]), np.random.default_rng(seeds[1])
    classes, columns = np.unique(y, return_inverse=True)
    inputs, fitted, encoder, net_key = X, None, None, {"X": X, "y": columns}
    if STRATEGIES[strategy].needs_net:
        encoder = ColumnEncoder.for_net(net, X, y)
        columns = encoder.encode(y)
        with _stage(progress, "train scoring net"):
            fitted, net_key = trained(net, X, columns, net_seed, memory)
        inputs = net_input(fitted, X)
    sketch_seed = int(seeds[2].generate_state(1)[0])
    samples = Samples(fitted, inputs, X, columns, options | cost_options, rng, sketch_seed)
    key = net_key | {"strategy": strategy, "random state": rng.bit_generator.state} | options
    with _stage(progress, f"order samples by {strategy}"):
        ordering = cached(memory, "order", _order, key, strategy, samples)
    return Scored(net, net_seed, fitted, X, y, encoder, classes, ordering)


def _stage(progress, name):
    return nullcontext() if progress is None else progress.stage(name)


def _order(strategy, samples):
    return STRATEGIES[strategy].order(samples)
