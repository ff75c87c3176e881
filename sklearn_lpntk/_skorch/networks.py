"""A network as people bring it: what computes the logits, and how it takes samples.

A skorch net may do something to a batch before its module gets it. What its own loader hands out
and what its own ``infer`` calls is followed; where its logits are other ones all the same, that is
refused by the name of what does it.
"""

import torch
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor
from skorch.dataset import Dataset as ArrayDataset
from torch import nn
from torch.utils.data import DataLoader, default_collate

from .._engine.inputs import checked_forward, logits_in, mapped, n_rows, to_batch
from .._engine.session import borrowed
from .._runtime.views import viewed
from .._samples.datasets import Items, is_dataset, opened
from .._samples.inputs import as_inputs, has_parts
from .nets import is_skorch_net, require_logits, unfrozen, unwrapped

# what a skorch net may have of its own between X and the logits
READING = "get_dataset", "get_iterator"
CALLING = "infer", "evaluation_step", "forward_iter", "forward"
CPU = torch.device("cpu")
ROWS = 8  # samples by which the net's own logits are compared with ours


class Network:
    """A module, a fitted skorch net, or a fitted Pipeline that ends in one.

    Attributes
    ----------
    module : nn.Module
        Called as the net calls it; it has the names and parameters of the net's module.
    """

    def __init__(self, given):
        self._steps, self._net = None, unfrozen(given)
        if isinstance(self._net, Pipeline):
            self._steps, self._net = self._net[:-1], unfrozen(self._net[-1])
        if isinstance(self._net, nn.Module):
            self.module, self._net = unwrapped(self._net), None
            return
        if not isinstance(self._net, NeuralNet):
            raise TypeError(
                "Expected a torch.nn.Module, a fitted skorch net, or a fitted Pipeline that ends "
                f"in one; got {type(self._net).__name__}."
            )
        require_logits(self._net)
        if not getattr(self._net, "initialized_", False):
            raise NotFittedError(
                f"This {type(self._net).__name__} is not fitted yet; call its fit, or initialize."
            )
        module = unwrapped(self._net.module_)
        own = _is_own(self._net, "infer")
        if own:
            _require_one_module(self._net)
        self.module = viewed(module, Inferring, self._net) if own else module
        self._is_proved = not any(_is_own(self._net, name) for name in CALLING)

    def inputs(self, X, name="X"):
        """X as the module takes it."""
        if self._steps:
            X = self._steps.transform(X)
        if self._net is None:
            return as_inputs(X, name)
        inputs = as_read(self._net, X, name)
        if not self._is_proved:
            self._require_same_logits(X, inputs)
            self._is_proved = True
        return inputs

    def _require_same_logits(self, X, inputs):
        """Refuse a net that computes something else than its module on these inputs."""
        net, like = self._net, next(p for p in self.module.parameters() if p.is_floating_point())
        few = X
        if not (is_dataset(X) or reads_for_itself(net)):  # as skorch takes it
            few = mapped(torch.Tensor.cpu, to_batch(inputs, slice(0, ROWS), like.dtype, CPU))
        with borrowed(unwrapped(net.module_)), borrowed(self.module):
            theirs, again = (
                logits_in(next(iter(net.forward_iter(few))))[:ROWS].detach() for _ in range(2)
            )
            rows = slice(0, len(theirs))
            ours = checked_forward(self.module, to_batch(inputs, rows, like.dtype, like.device))
        ours = ours.detach().to(theirs).reshape(len(theirs), -1)
        theirs = theirs.reshape(len(theirs), -1)
        if ours.shape == theirs.shape and torch.allclose(
            ours, theirs, rtol=1e-3, atol=1e-4 * float(ours.abs().max())
        ):
            return
        own = [name for name in CALLING if _is_own(net, name)]
        if not torch.equal(theirs, again.reshape(theirs.shape)):
            raise ValueError(
                f"{type(net).__name__} gives other logits whenever it is asked ({', '.join(own)} "
                "of its own draws random numbers?), so that a sample has no one kernel. Make it "
                "a function of the sample in evaluation."
            )
        raise ValueError(
            f"What {type(net).__name__} computes is not what its module gives for the same samples:"
            f" {', '.join(own)} of its own changes it, and the kernel would be another network's. "
            "Move the change into the module's forward, or into infer, which is followed."
        )


def require_classifier(net):
    """Refuse what is no skorch classifier that emits logits."""
    if not is_skorch_net(net) or isinstance(unfrozen(net), NeuralNetRegressor):
        raise TypeError(
            "net must be a skorch classifier, a FrozenEstimator of one, a Pipeline that ends in "
            f"one, or an nn.Module; got {type(unfrozen(net)).__name__}."
        )
    require_logits(unfrozen(net))
    if isinstance(net, FrozenEstimator):
        Network(net)  # it must have been trained


def require_regressor(net):
    """Refuse what is no skorch net that predicts numbers."""
    if not is_skorch_net(net) or isinstance(net, NeuralNetClassifier):
        raise TypeError(
            "net must be a skorch regressor, a FrozenEstimator of a skorch net, a Pipeline that "
            f"ends in one, or an nn.Module; got {type(unfrozen(net)).__name__}."
        )
    if isinstance(net, FrozenEstimator):
        Network(net)  # it must have been trained


def as_read(net, X, name="X"):
    """X as a skorch net's own loader hands it out, where that is not skorch's plain one."""
    if not (is_dataset(X) or reads_for_itself(net)):
        X = as_inputs(X, name)
        return list(X) if isinstance(X, tuple) else X  # skorch passes several as one list
    if is_dataset(X):
        X, collate = opened(X, name)
        require_same_collate(net, collate, name)
    data = net.get_dataset(X)
    loader = net.get_iterator(data, training=False)
    n = len(data) if is_dataset(X) else n_rows(X if has_parts(X) else {"X": X})
    if not isinstance(loader, DataLoader) or len(data) != n:
        raise ValueError(
            f"{name} has {n} samples, and what {type(net).__name__} makes of it (dataset=, "
            f"get_dataset, iterator_valid) is a {type(loader).__name__} of {len(data)}, so rows "
            "can't be told apart. Make it one item for each row, in a DataLoader."
        )
    try:
        inputs = Items(loader, name).inputs
    except ValueError as error:
        raise ValueError(
            f"{name}, as {type(net).__name__} reads it (dataset=, get_dataset, iterator_valid, "
            f"collate_fn): {error}"
        ) from error
    return list(inputs) if isinstance(inputs, tuple) else inputs


def require_same_collate(net, collate, name="X"):
    """Refuse a loader that collates in another way than the net would."""
    own = net.get_params(deep=False).get("iterator_valid__collate_fn")
    if collate is not default_collate and collate is not own:
        raise ValueError(
            f"{name} is a DataLoader with a collate_fn of its own, which {type(net).__name__} does "
            "not use: set iterator_train__collate_fn and iterator_valid__collate_fn of the net, or "
            "pass its module."
        )


def reads_for_itself(net):
    """Whether a skorch net makes more of arrays than skorch's own data set and loader do."""
    collate = net.get_params(deep=False).get("iterator_valid__collate_fn")
    plain = net.dataset is ArrayDataset and net.iterator_valid is DataLoader and collate is None
    return not plain or any(_is_own(net, name) for name in READING)


def _is_own(net, name):
    """Whether a method is the user's, not skorch's."""
    return (getattr(net, name).__module__ or "").split(".")[0] != "skorch"


def _require_one_module(net):
    """Refuse a net whose infer may use parameters that are not its module's."""
    others = [name for name in getattr(net, "_modules", []) if name != "module"]
    if others:
        raise ValueError(
            f"{type(net).__name__} has an infer of its own, and besides its module {others}, whose "
            "parameters the kernel would lack: make them parts of the module."
        )


# -- a net's own infer ----------------------------------------------------------------------


class Inferring:
    """A module called as a net's ``infer`` calls it."""

    def __init__(self, module, net):
        self.net = object.__new__(type(net))
        vars(self.net).update(vars(net), module_=module)

    def __call__(self, *args, **kwargs):
        return self.net.infer(kwargs or (list(args) if len(args) > 1 else args[0]))
