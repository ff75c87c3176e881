"""Which strategy the final estimator likes best, on rows that it does not see."""

from dataclasses import dataclass

import numpy as np

from .._gram import warn
from .._skorch.held_out import SHARE, held_out_mask
from ._strategies import name_of

ENOUGH, MOST_SPLITS = 1000, 5  # held-out rows, in all splits together


@dataclass(frozen=True)
class Comparison:
    """Held-out rows that the final estimator has right, by strategy.

    Attributes
    ----------
    hits : dict of name to ndarray of shape (n_held_out,), bool
        Of all splits.
    """

    hits: dict

    @property
    def scores(self):
        """Accuracy by strategy."""
        return {name: float(hits.mean()) for name, hits in self.hits.items()}

    @property
    def best(self):
        """The name of the most accurate one; of equal ones the first."""
        return max(self.hits, key=lambda name: self.hits[name].mean())

    def warn_if_random(self, fraction):
        """Warn where random rows do as well, by the standard error of the difference."""
        others = {name: hits for name, hits in self.hits.items() if name != "random"}
        if "random" not in self.hits or not others:
            return
        best = Comparison(others).best
        gains = self.hits[best].astype(float) - self.hits["random"]
        error = gains.std() / len(gains) ** 0.5
        if gains.mean() <= error:
            warn(
                f"Choosing rows buys nothing here: with {100 * fraction:.3g}% of the rows dropped, "
                f"on {len(gains)} held-out rows the best strategy but 'random', {best!r}, is right "
                f"for {self.scores[best]:.1%} and 'random' for {self.scores['random']:.1%}: no "
                f"more than a standard error of {error:.1%} above it."
            )


def compared(strategies, columns, rng, hits_of):
    """The comparison of strategies on a fifth of the rows, or on several of them for few rows.

    Parameters
    ----------
    strategies : list of str or callable
    columns : ndarray of shape (n_samples,)
    rng : numpy Generator
    hits_of : callable
        ``(strategy, rows, held_out_rows)`` to whether each of the second is right.
    """
    n_splits = int(np.clip(np.ceil(ENOUGH / (SHARE * len(columns))), 1, MOST_SPLITS))
    hits = {name: [] for name in names_of(strategies)}
    for _ in range(n_splits):
        held = held_out_mask(columns, rng)
        if not held.any():
            raise ValueError(
                "Strategies are compared on held-out rows, and every class has one row only: name "
                "one strategy."
            )
        rows, others = np.flatnonzero(~held), np.flatnonzero(held)
        for strategy, found in zip(strategies, hits.values()):
            found.append(hits_of(strategy, rows, others))
    return Comparison({name: np.concatenate(found) for name, found in hits.items()})


def names_of(strategies):
    """What strategies are called, each by another name."""
    names = []
    for name in map(name_of, strategies):
        taken = sum(n == name or n.startswith(f"{name}-") for n in names)
        names.append(f"{name}-{taken + 1}" if taken else name)
    return names
