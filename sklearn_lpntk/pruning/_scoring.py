"""Train the scoring net and order the samples, each found in the cache where it was done."""

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from .._runtime.cache import cached
from .._skorch.labels import ColumnEncoder
from .._skorch.nets import is_skorch_net, net_input, trained, value_of
from .._skorch.networks import Network, require_classifier
from .._skorch.scoring import Scorer, scorer_of, takes_tables
from ._orders import STRATEGIES
from ._samples import Ordering, Samples
from ._stand_ins import stand_ins


@dataclass
class Scored:
    """What scoring found out.

    Attributes
    ----------
    scorer : Scorer, or None where no net was needed
    net_seed : int
        Of its weights and batches.
    trained : fitted skorch net, or None for a strategy that needs none
    X, y : samples and labels as `given` returns them
    encoder : ColumnEncoder of the net, or None for a strategy that needs no net
    classes : ndarray of shape (n_classes,)
    ordering : Ordering
    kept : ndarray of shape (n_samples,), bool, or None before a fraction is chosen
    """

    scorer: Scorer | None
    net_seed: int
    trained: object
    X: object
    y: np.ndarray
    encoder: ColumnEncoder | None
    classes: np.ndarray
    ordering: Ordering
    kept: np.ndarray | None = None


def score_samples(net, X, y, strategy, options, cost_options, *, retrains, seed, memory, progress):
    """Train the net where the strategy needs one, and order the samples by the strategy.

    ``net`` is an estimator's parameter, which ``retrains`` says will be fitted in the end;
    ``options`` are what the order depends on, ``cost_options`` change only what it costs.
    """
    seeds = np.random.SeedSequence(int(seed)).spawn(3)
    net_seed, rng = int(seeds[0].generate_state(1)[0]), np.random.default_rng(seeds[1])
    sketch_seed, kind = int(seeds[2].generate_state(1)[0]), STRATEGIES[strategy]
    classes, columns = np.unique(y, return_inverse=True)
    scorer = fitted = encoder = network = None
    inputs, key = X, {"y": columns}
    if kind.needs_net or retrains or (kind.needs_numbers and takes_tables(net)):
        scorer = scorer_of(net, X, y, len(classes), sketch_seed)
        inputs = scorer.inputs
        if kind.needs_net or not is_skorch_net(scorer.net):
            require_classifier(scorer.net)
    if kind.needs_net:
        encoder = ColumnEncoder.for_net(scorer.net, inputs, y)
        columns = encoder.encode(y)
        with _stage(progress, "train scoring net"):
            fitted, key = trained(scorer.net, inputs, columns, net_seed, memory)
        network = Network(fitted)
        inputs = network.inputs(net_input(fitted, inputs))
    elif kind.needs_numbers and memory is not None:
        key["X"] = value_of(inputs)
    samples = Samples(network, inputs, columns, options | cost_options, rng, sketch_seed)
    key |= {"strategy": strategy, "random state": rng.bit_generator.state} | options
    with _stage(progress, f"order samples by {strategy}"):
        ordering = cached(memory, "order", _order, key, strategy, samples)
    return Scored(scorer, net_seed, fitted, X, y, encoder, classes, ordering)


def _stage(progress, name):
    return nullcontext() if progress is None else progress.stage(name)


def _order(strategy, samples):
    found = STRATEGIES[strategy].order(samples)
    if STRATEGIES[strategy].compares:
        found.stand_ins = stand_ins(samples.operator(), samples.columns, found.prune_order)
    return found
