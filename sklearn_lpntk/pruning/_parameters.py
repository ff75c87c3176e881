"""Which parameters of a pruner go together."""

import warnings
from numbers import Integral

from sklearn.base import is_regressor
from torch import nn

from .._runtime.cache import warn_if_never_found
from ._strategies import STRATEGIES, name_of, strategy_of


def check_parameters(pruner, strategies):
    """Refuse parameters of a pruner that do not go together."""
    _require_known(strategies)
    _require_recipe(pruner.prune_fraction, strategies)
    if pruner.estimator is None and isinstance(pruner.net, nn.Module) and len(strategies) > 1:
        raise TypeError(
            "Several strategies are compared by the final estimator, and net is a plain module, of "
            "which nothing says how to train it: pass estimator=, or net= as a skorch classifier."
        )
    seeded = isinstance(pruner.random_state, Integral)
    if pruner.store is not None and pruner.n_components is not None and not seeded:
        raise ValueError(
            f"store= keeps a sketch, which random_state={pruner.random_state} draws anew in "
            "every fit, so that it would be refused. Pass an int random_state."
        )
    if pruner.refine and pruner.n_components is None:
        raise ValueError(
            "refine=True computes exactly what a sketch finds; without n_components there is "
            "no sketch and all is exact. Set n_components, for example 4096, or refine=False."
        )
    if pruner.precision != "deprecated":
        warnings.warn(
            "precision= has no effect and will be removed in version 0.3.",
            FutureWarning,
            stacklevel=2,
        )
    warn_if_never_found(pruner)
    if pruner.estimator is not None and is_regressor(pruner.estimator):
        raise TypeError(
            f"estimator must be a classifier; got {type(pruner.estimator).__name__}, a "
            "regressor: samples are scored and pruned by class."
        )


def _require_known(strategies):
    for strategy in strategies:
        if not (callable(strategy) or (isinstance(strategy, str) and strategy in STRATEGIES)):
            raise ValueError(
                f"strategy must name strategies among {sorted(STRATEGIES)}, or be functions; got "
                f"{strategy!r}."
            )
    if not strategies:
        raise ValueError("strategy is an empty list; name one strategy or more.")
    kinds = {name_of(strategy): strategy_of(strategy) for strategy in strategies}
    recorded = [name for name, kind in kinds.items() if kind.needs_dynamics]
    early = [name for name, kind in kinds.items() if kind.regresses]
    if recorded and early:
        raise ValueError(
            f"{early[0]!r} needs a net that stops early, and {recorded[0]!r} one that was trained "
            "to its end: they can't be candidates of one pruner. Compare them in a grid."
        )


def _require_recipe(prune_fraction, strategies):
    without = [s for s in strategies if not strategy_of(s).has_auto]
    if prune_fraction == "auto" and without:
        recipes = sorted(name for name, s in STRATEGIES.items() if s.has_auto)
        raise ValueError(
            f"prune_fraction='auto' is the paper's recipe for the strategies {recipes}; "
            f"strategy={name_of(without[0])!r} needs a fraction."
        )
