"""The final estimator on the kept rows, where it is a net that is trained here."""

from sklearn.frozen import FrozenEstimator

from .._samples.datasets import is_dataset
from .._skorch.labels import ColumnEncoder
from .._skorch.nets import fit_net, unfrozen, with_steps_of
from .._skorch.scoring import ends_in_skorch


def require_taking(estimator, X):
    """Refuse a data set for an estimator that would iterate over it without end."""
    ours = type(estimator).__module__.startswith("sklearn.")
    if is_dataset(X) and ours and not ends_in_skorch(estimator):
        raise TypeError(
            f"X is a data set, which {type(estimator).__name__} can't be fitted to: pass a skorch "
            "classifier as estimator=, or take the kept items from fit_resample."
        )


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
