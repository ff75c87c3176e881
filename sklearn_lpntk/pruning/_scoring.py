"""Train the scoring net and order the samples, each found in the cache where it was done."""

from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from .._runtime.cache import cached
from .._skorch.held_out import AllRows, as_given, stopping_early
from .._skorch.labels import ColumnEncoder
from .._skorch.nets import is_skorch_net, net_input, trained, unfrozen, value_of
from .._skorch.networks import Network, require_classifier
from .._skorch.scoring import Scorer, scorer_of, takes_tables
from ..dynamics import TrainingDynamics
from ._samples import Ordering, Samples
from ._stand_ins import stand_ins
from ._strategies import name_of, strategy_of


@dataclass
class Scored:
    """What scoring found out.

    Attributes
    ----------
    scorer : Scorer, or None where no net was needed
    net_seed : int
        Of its weights and batches.
    trained : fitted skorch net, or None for strategies that need none
    X, y : samples and labels as `given` returns them
    encoder : ColumnEncoder of the net, or None for strategies that need no net
    classes : ndarray of shape (n_classes,)
    samples : Samples
    ordering : Ordering, or None before a strategy is chosen
    kept : ndarray of shape (n_samples,), bool, or None before a fraction is chosen
    order_seed : SeedSequence
        Of what strategies draw.
    key : dict
        What orders depend on besides the strategy, for the cache ``memory``.
    """

    scorer: Scorer | None
    net_seed: int
    trained: object
    X: object
    y: np.ndarray
    encoder: ColumnEncoder | None
    classes: np.ndarray
    samples: Samples
    ordering: Ordering | None = None
    kept: np.ndarray | None = None
    order_seed: object = None
    key: dict = field(default_factory=dict)
    memory: object = None
    progress: object = None

    def ordered(self, strategy, rows=None):
        """The order of all samples, or of some, by one strategy.

        Each strategy draws from a generator of its own, whatever else was ordered before.
        """
        samples, rng = self.samples, np.random.default_rng(self.order_seed)
        samples = replace(samples, rng=rng) if rows is None else samples.part(rows, rng)
        key = self.key | {"strategy": strategy, "random state": rng.bit_generator.state}
        key |= {} if rows is None else {"rows": rows}
        with stage(
            self.progress if rows is None else None, f"order samples by {name_of(strategy)}"
        ):
            return cached(self.memory, "order", _order, key, strategy, samples)


def score_samples(
    net, X, y, strategies, options, cost_options, *, retrains, seed, memory, progress
):
    """Train the net where a strategy needs one.

    ``net`` is an estimator's parameter, which ``retrains`` says will be fitted in the end;
    ``options`` are what the order depends on, ``cost_options`` change only what it costs.
    """
    seeds = np.random.SeedSequence(int(seed)).spawn(3)
    net_seed, sketch_seed = (int(seeds[k].generate_state(1)[0]) for k in (0, 2))
    kinds = [strategy_of(strategy) for strategy in strategies]
    needs_net, needs_numbers = (any(getattr(k, of) for k in kinds) for of in NEEDS)
    classes, columns = np.unique(y, return_inverse=True)
    scorer = fitted = encoder = network = None
    inputs, key = X, {"y": columns}
    if needs_net or retrains or (needs_numbers and takes_tables(net)):
        scorer = scorer_of(net, X, y, len(classes), sketch_seed)
        inputs = scorer.inputs
        if needs_net or not is_skorch_net(scorer.net):
            require_classifier(scorer.net)
    if needs_net:
        encoder = ColumnEncoder.for_net(scorer.net, inputs, y)
        columns = encoder.encode(y)
        own = _as_scoring(scorer.net, net is None, kinds, columns)
        with stage(progress, "train scoring net"):
            fitted, key = trained(own, inputs, columns, net_seed, memory)
        if own is not scorer.net:
            fitted = as_given(fitted, scorer.net)
        network = Network(fitted)
        inputs = network.inputs(net_input(fitted, inputs))
    elif needs_numbers and memory is not None:
        key["X"] = value_of(inputs)
    training = None if fitted is None else _recorded(fitted)
    options_of_all = options | cost_options
    samples = Samples(network, inputs, columns, options_of_all, None, sketch_seed, y, training)
    more = {"order_seed": seeds[1], "key": key | options, "memory": memory, "progress": progress}
    return Scored(scorer, net_seed, fitted, X, y, encoder, classes, samples, **more)


NEEDS = "needs_net", "needs_numbers"


def _as_scoring(net, is_default, kinds, columns):
    """The net as it scores: stopped early, or recorded on all rows where its training counts."""
    if isinstance(net, FrozenEstimator):
        return net
    if any(kind.needs_dynamics for kind in kinds):
        callbacks = net.callbacks if isinstance(net.callbacks, list | tuple) else []
        net = clone(net)
        net.train_split = None if net.train_split is None else AllRows(net.train_split)
        if not any(isinstance(_callback_of(c), TrainingDynamics) for c in callbacks):
            net.callbacks = [*callbacks, ("sklearn_lpntk_recorded", TrainingDynamics())]
        return net
    early = is_default or any(kind.regresses for kind in kinds)
    return stopping_early(net, columns) if early else net


def _callback_of(given):
    return given[1] if isinstance(given, tuple) else given


def _recorded(net):
    """What `TrainingDynamics` recorded of a net's training, or None."""
    callbacks = (callback for _, callback in getattr(unfrozen(net), "callbacks_", ()))
    return next((c for c in callbacks if isinstance(c, TrainingDynamics)), None)


def stage(progress, name):
    """A stage of a fit's progress, where that is told."""
    return nullcontext() if progress is None else progress.stage(name)


def _order(strategy, samples):
    kind = strategy_of(strategy)
    found = kind.order(samples)
    if kind.compares and samples.whole is None:
        found.stand_ins = stand_ins(samples.operator(), samples.columns, found.prune_order)
    return found
