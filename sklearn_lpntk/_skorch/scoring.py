"""The net that scores samples: the user's, a plain module as one, or a small one of our own."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import assert_all_finite
from torch import nn
from torch.utils.data import DataLoader

from .._engine.inputs import is_many
from .._samples.datasets import is_dataset, opened
from .._samples.inputs import as_inputs
from .._samples.preparation import preparation_of
from .._samples.tables import is_frame
from .default_net import default_net, default_regressor
from .nets import as_trained, is_skorch_net, unfrozen
from .networks import require_same_collate


@dataclass(frozen=True)
class Scorer:
    """A net that scores samples, and what prepares them for it alone.

    Attributes
    ----------
    net : skorch classifier, frozen or still to be trained
    steps : fitted transformer or None
    inputs : X as the net takes it
    """

    net: object
    steps: object
    inputs: object

    def prepared(self, X):
        """Other samples as the net takes them."""
        return prepared(self.steps, X)


def prepared(steps, X):
    """X as a net takes it, whose training needed steps or none."""
    if steps is not None:
        return _as_array(steps.transform(X))
    if is_frame(X):  # what was numbers in fit must be so now
        X = as_inputs(X)
    if isinstance(X, np.ndarray) and X.dtype.kind == "f":
        assert_all_finite(X, input_name="X")
    return X


def takes_tables(net):
    """Whether a scoring net gets numbers made of any table: our own, or one behind a Pipeline."""
    return net is None or isinstance(unfrozen(net), Pipeline)


def kinds_taken(net):
    """What `given` may take for a scoring net: tables, or whatever the steps of a Pipeline do."""
    return {"tables": takes_tables(net), "raw": isinstance(unfrozen(net), Pipeline)}


def as_scored(estimator, X):
    """X as the scoring net of a fitted estimator took it; as it is for a network itself."""
    for name in ("_scoring_steps", "_steps"):
        steps = getattr(estimator, name, None)
        if hasattr(estimator, "net_") and steps is not None:
            return prepared(steps, X)
    return X


def ends_in_skorch(estimator):
    """Whether an estimator is a Pipeline whose last step is a skorch net."""
    pipeline = unfrozen(estimator)
    return isinstance(pipeline, Pipeline) and is_skorch_net(pipeline[-1])


def scorer_of(net, X, y, n_classes, seed):
    """The scoring net for an estimator's parameter ``net``, whose preparation is fitted to X.

    Parameters
    ----------
    net : skorch net, FrozenEstimator, Pipeline, nn.Module or None
    X, y : as `given` returns them
    n_classes : int, or None where y are numbers to be predicted
    """
    loader = X
    if net is None:
        return _default(X, y, n_classes, seed)
    if isinstance(X, DataLoader):
        X, collate = opened(X, "X")
        if is_skorch_net(net):
            require_same_collate(unfrozen(net), collate)
    steps = None
    if isinstance(unfrozen(net), Pipeline):
        net, steps, X = _opened(net, X, y)
    if isinstance(net, nn.Module):
        net = as_trained(net, loader if steps is None else X, regressor=n_classes is None)
    return Scorer(net, steps, X)


def _default(X, y, n_classes, seed):
    if is_dataset(X):
        X = as_inputs(X)
        X = X if is_many(X) else X[:]
    if is_many(X):
        raise ValueError(
            "The default scoring net takes one array, and X has several inputs "
            f"({', '.join(map(str, X)) if isinstance(X, dict) else len(X)}): pass net=, a skorch "
            "classifier or a module that takes them, or a frame, if they are columns of a table."
        )
    steps = preparation_of(X, seed)
    if steps is not None:
        X = _as_array(steps.fit_transform(X))
    net = default_regressor(X, y) if n_classes is None else default_net(X, n_classes)
    return Scorer(net, steps, X)


def _opened(net, X, y):
    """The net at the end of a Pipeline, the steps before it, and X after these."""
    frozen, pipeline = isinstance(net, FrozenEstimator), unfrozen(net)
    steps, last = pipeline[:-1], pipeline[-1]
    if not ends_in_skorch(net):
        raise TypeError(
            "net is a Pipeline, whose last step must be a skorch classifier; got "
            f"{type(unfrozen(last)).__name__}."
        )
    last = FrozenEstimator(last) if frozen and not isinstance(last, FrozenEstimator) else last
    if not len(steps):
        return last, None, X
    if frozen:
        return last, steps, _as_array(steps.transform(X))
    steps = clone(steps)
    return last, steps, _as_array(steps.fit_transform(X, y))


def _as_array(X):
    """What a transformer returns, as a net takes it: an array, or a CSR one."""
    return X.tocsr() if issparse(X) else as_inputs(X)
