"""The final estimator on the kept rows, where it is a net that is trained here."""

from contextlib import nullcontext
from typing import NamedTuple

from sklearn.frozen import FrozenEstimator

from .._skorch.labels import ColumnEncoder
from .._skorch.nets import fit_net, seeded_for, unfrozen, with_steps_of
from .._skorch.scoring import ends_in_skorch


class Final(NamedTuple):
    """A fitted final estimator; of a net that is trained here its labels, and what prepares X."""

    estimator: object
    encoder: ColumnEncoder | None = None
    steps: object = None


def seeded_at_the_end(final, seed):
    """The global generators seeded for a Pipeline that ends in a skorch net."""
    return seeded_for(unfrozen(final)[-1], seed) if ends_in_skorch(final) else nullcontext()


def retrain(final, found, kept, budget, fit_params, *, own):
    """A net trained on the kept rows, and the columns of its labels.

    Parameters
    ----------
    final : skorch net, or FrozenEstimator of one, which stays as it is
    found : Scored
    kept : ndarray of int
    budget : {"epochs", "steps"}
    own : bool
        Whether it is another net than the one that scored, which gets X as it was given. A scoring
        net keeps the meaning of its columns, and starts anew if it was frozen.
    """
    source = final if own else found.scorer.net
    inputs = found.X if own else found.scorer.inputs
    encoder = (None if own else found.encoder) or ColumnEncoder.for_net(source, inputs, found.y)
    if isinstance(final, FrozenEstimator):
        return unfrozen(final), encoder
    columns = encoder.encode(found.y)
    if budget == "steps":
        final = with_steps_of(final, inputs, columns, kept)
    fresh = isinstance(source, FrozenEstimator)
    options = {"rows": kept, "from_scratch": fresh} | fit_params
    return fit_net(final, inputs, columns, found.net_seed, **options), encoder
