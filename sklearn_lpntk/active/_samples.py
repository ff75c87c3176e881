"""Samples of a query as the network and the kernel take them."""

import copy
import warnings

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from .._engine.evaluate import all_logits
from .._engine.inputs import n_rows, parts_of, take
from .._gram import as_matrix
from .._samples.datasets import Rows
from .._samples.digest import data_digest
from .._samples.inputs import as_one_array
from .._samples.tables import is_frame
from .._skorch.labels import ColumnEncoder
from .._skorch.nets import unfrozen
from .._skorch.networks import Network
from ..linearized._kernels import NAMES, Features, TangentKernel
from ._objectives import as_given


class Compared:
    """Samples with the network's outputs, and what their kernel is made of.

    Attributes
    ----------
    outputs : ndarray of shape (n_samples, n_outputs)
    parts : list
        Features, or arrays for a callable kernel.
    """

    def __init__(self, outputs, parts):
        self.outputs, self.parts = outputs, parts

    def __len__(self):
        return len(self.outputs)

    def with_more(self, other):
        """These and others."""
        return Compared(np.vstack([self.outputs, other.outputs]), self.parts + other.parts)


class Comparer:
    """Outputs and kernels of samples under one network.

    Parameters
    ----------
    net : nn.Module, fitted skorch net, or fitted Pipeline that ends in one
    kernel : str or callable
    form : {"logits", "probabilities"}
        What the outputs are.
    """

    def __init__(self, net, kernel, form="logits"):
        if not (callable(kernel) or kernel in NAMES):
            raise ValueError(
                f"kernel must be one of {', '.join(NAMES)}, or a callable kernel(X, Y); got "
                f"{kernel!r}."
            )
        self.network, self.kernel, self.form = Network(net), kernel, form
        net = unfrozen(net)
        self._net = FrozenEstimator(unfrozen(net[-1]) if isinstance(net, Pipeline) else net)
        self._names, self._state = None, self._state_now()
        self._features = None if callable(kernel) else Features(self.network, kernel)

    def samples(self, X, name):
        """X as compared samples."""
        inputs = self._inputs(X, name)
        outputs = self.outputs_of(inputs)
        if self._features is None:
            return Compared(outputs, [np.array(as_one_array(X, name))])
        features = self._features(inputs)
        if not features.in_memory:  # they are computed anew, so that X must stay as it is
            features = self._features(copy.deepcopy(inputs))
        return Compared(outputs, [features])

    def _inputs(self, X, name):
        """X as the network takes it, whose columns must be those of the first X."""
        names = [str(c) for c in X.columns] if is_frame(X) else None
        if self._names is not None and names is not None and names != self._names:
            raise ValueError(
                f"{name} has the columns {names[:5]}, and the labelled samples {self._names[:5]}: "
                "pass the same ones, in the same order."
            )
        inputs = self.network.inputs(X, name)
        self._names = self._names or names
        return inputs

    def require_same_network(self):
        """Refuse a network that has changed: its kernel and outputs would not fit."""
        if self._state_now() != self._state:
            raise ValueError(
                "The network has changed since fit: call fit again, with the samples that it was "
                "trained on."
            )

    def _state_now(self):
        state = self.network.module.state_dict()
        return data_digest({k: v.reshape(-1) for k, v in state.items() if torch.is_tensor(v)})

    def pool(self, X, name="X_pool"):
        """Inputs of a pool, which has no labels."""
        inputs = self._inputs(X, name)
        rows = next(iter(parts_of(inputs).values()))
        if isinstance(rows, Rows) and rows.items.batch(range(1))[1] is not None:
            warnings.warn(
                f"{name} is a data set with labels, which are not looked at: a query is about "
                "samples whose labels are not known.",
                UserWarning,
                stacklevel=4,
            )
        return inputs

    def outputs_of(self, inputs):
        """The network's outputs."""
        logits = all_logits(self.network.module, inputs).double().cpu().numpy()
        return as_given(logits, self.form)

    def of_inputs(self, inputs, X, rows=None):
        """Some rows of a pool as compared samples."""
        rows = np.arange(n_rows(inputs)) if rows is None else rows
        some = take(inputs, rows)
        outputs = self.outputs_of(some)
        if self._features is None:
            return Compared(outputs, [as_one_array(X)[rows]])
        return Compared(outputs, [self._features(some)])

    def columns(self, y, n_outputs, name):
        """Labels as columns of the outputs."""
        y = np.asarray(y).reshape(-1)
        columns = ColumnEncoder.for_net(self._net, None, y).encode(y)
        if len(columns) and columns.max() >= max(n_outputs, 2):
            raise ValueError(
                f"{name} contains {columns.max()}, and the network has {n_outputs} logit(s): "
                f"labels must be columns from 0 to {max(n_outputs, 2) - 1}."
            )
        return columns

    def matrix(self, left, right=None):
        """The kernel of all pairs, (n R, m R) in double precision."""
        if right is None:
            if len(left.parts) == 1:
                return self._block(left.parts[0])
            right = left
        rows = [np.hstack([self._block(a, b) for b in right.parts]) for a in left.parts]
        return np.vstack(rows)

    def _block(self, a, b=None):
        if self._features is None:
            K = as_matrix(self.kernel(a) if b is None else self.kernel(a, b))
            K = np.array(K, dtype=np.float64)
            shape = len(a), len(a if b is None else b)
            if K.shape != shape or not np.isfinite(K).all():
                raise ValueError(
                    f"kernel(X, Y) must return finite numbers of shape {shape}; got shape "
                    f"{K.shape}" + ("." if K.shape != shape else " with NaN or infinity.")
                )
            return K
        return TangentKernel.matrix(a, b)
