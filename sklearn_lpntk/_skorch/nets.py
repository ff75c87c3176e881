"""The one file that knows how skorch nets work: their modules, inputs and training."""

import copy
import functools
import signal
import threading
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from scipy.sparse import csr_matrix, issparse
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch import (
    NeuralNet,
    NeuralNetBinaryClassifier,
    NeuralNetClassifier,
    NeuralNetRegressor,
)
from skorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader

from .._engine.inputs import checked_forward, logits_in, mapped, to_batch
from .._engine.parameters import accepted, select_parameters
from .._engine.session import borrowed
from .._runtime.cache import cached
from .._runtime.fingerprint import fingerprint
from .._runtime.progress import is_heard, report
from .._runtime.turns import exclusive, seeded
from .._runtime.values import parameters_of, state_of
from .._samples.datasets import Labelled, is_dataset, opened
from .._samples.given import rows_of
from .._samples.inputs import as_inputs

FEW = slice(0, 2)
WRAPPERS = nn.DataParallel, nn.parallel.DistributedDataParallel


def is_skorch_net(estimator):
    """Whether an estimator is a skorch net, frozen or not."""
    return isinstance(unfrozen(estimator), NeuralNet)


def unfrozen(estimator):
    """The estimator inside a FrozenEstimator, or the estimator itself."""
    return estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator


def require_logits(net):
    """Refuse a skorch net whose criterion expects probabilities."""
    criterion = getattr(net, "criterion_", net.criterion)
    criterion = criterion.func if isinstance(criterion, functools.partial) else criterion
    kind = criterion if isinstance(criterion, type) else type(criterion)
    wanted = {nn.NLLLoss: "CrossEntropyLoss", nn.BCELoss: "BCEWithLogitsLoss"}
    for given, instead in wanted.items():
        if issubclass(kind, given):
            raise ValueError(
                f"The net's criterion is {kind.__name__}, for which the module must emit "
                "probabilities; the kernel is defined on logits. Remove the last softmax or "
                f"sigmoid from the module and set criterion=torch.nn.{instead}."
            )


def unwrapped(module):
    """The module under torch.compile, DataParallel and DistributedDataParallel.

    What is derived from these may do something of its own, and is a module like any other.
    """
    while True:
        compiled = type(module).__module__.startswith("torch._dynamo")
        if not (compiled or type(module) in WRAPPERS):
            return module
        if module._forward_hooks or module._forward_pre_hooks:
            raise ValueError(
                f"The network's wrapper {type(module).__name__} has hooks, which would be left "
                "out: register them on the module inside."
            )
        module = module._orig_mod if compiled else module.module


# -- training -----------------------------------------------------------------------------


def n_columns(net, X):
    """Number of classes that a net still to be trained can tell; None if training shapes it."""
    out = _tried(net, X)
    return None if out is None else max(2, out.shape[1]) if out.ndim > 1 else 2


def _tried(net, X):
    """What a net still to be trained gives for two samples; None where it can't be told."""
    trial = _cloned(net)
    try:
        with seeded_for(net, 0), torch.no_grad():
            trial.initialize()
            few = rows_of(X, range(2))
            return logits_in(next(iter(trial.forward_iter(net_input(trial, few)))))
    except Exception:  # a real misfit is explained when the net is trained
        return None


def as_outputs(net, X, Y):
    """Numbers of shape (n_samples, n_outputs) in the shape that a net's outputs have."""
    out = _tried(net, X)
    if out is None or (out.ndim == 2 and out.shape[1] == Y.shape[1]):
        return Y
    if out.ndim == 1 and Y.shape[1] == 1:
        return Y[:, 0]
    raise ValueError(
        f"y has {Y.shape[1]} output(s), and the net returns {tuple(out.shape[1:])} numbers for a "
        "sample; training needs as many. Change its last layer, or pass a module as it is."
    )


def net_input(net, X):
    """X as an initialised net takes it: floats in its own precision, integers as int64.

    A data set stays as it is.
    """
    if is_dataset(X):
        return _in_pairs(net, opened(X, "X")[0])
    floats = (p.dtype for p in net.module_.parameters() if p.is_floating_point())
    dtype = str(next(floats, torch.float32)).removeprefix("torch.")
    return mapped(lambda rows: _as_input(rows, dtype), X)


def _in_pairs(net, dataset):
    """A data set of (x, y), as skorch needs them to predict, too; a collate_fn knows its items."""
    item = dataset[0]
    pairs = isinstance(item, (tuple, list)) and len(item) == 2
    if pairs or net.get_params(deep=False).get("iterator_valid__collate_fn") is not None:
        return dataset
    return Labelled(dataset, np.arange(len(dataset)), np.zeros(len(dataset), dtype=np.int64))


def _as_input(X, dtype):
    if isinstance(X, torch.Tensor):
        other = torch.bool if X.dtype == torch.bool else torch.int64
        return X.detach().to(getattr(torch, dtype) if X.is_floating_point() else other)
    dtype = {"f": dtype, "b": bool}.get(X.dtype.kind, np.int64)
    if issparse(X):
        return csr_matrix(X).astype(dtype)  # skorch reads no sparse arrays
    return np.require(np.asarray(X).astype(dtype, copy=False), requirements="W")


def net_target(net, y):
    """Logit columns, or numbers to be predicted, as the net's criterion takes them."""
    floats = isinstance(net, (NeuralNetBinaryClassifier, NeuralNetRegressor))
    return y.astype(np.float32 if floats else np.int64)


def trained(net, X, columns, seed, memory):
    """The net trained on X, found in the cache, or a frozen one as it is; and its cache key."""
    data = {"X": value_of(X) if memory is not None else None, "y": columns}
    if isinstance(net, FrozenEstimator):
        return unfrozen(net), {"frozen net": unfrozen(net)} | data
    key = _key_of(net) | data | {"seed": seed}
    return cached(memory, "trained net", fit_net, key, net, X, columns, seed), key


def value_of(X):
    """What a cache knows X by: of a data set what its items are, whatever they are read from."""
    if not is_dataset(X):
        return X
    dataset = opened(X, "X")[0]
    return [fingerprint(dataset[i]) for i in range(len(dataset))]


def _key_of(net):
    """What training a net depends on, by name: each parameter for itself."""
    own = {"net": (type(net), getattr(net, "module_", None), state_of(net))}
    return own | {f"net.{k}": v for k, v in parameters_of(net).items()}


def fit_net(net, X, columns, seed, *, rows=None, from_scratch=False, **fit_params):
    """A clone of the net, trained; the caller's global random state stays untouched.

    Parameters
    ----------
    X : as `net_input` takes it
    columns : ndarray of shape (n_samples,)
        Labels as logit columns.
    rows : ndarray of int, optional
        Those of X to train on; all if None.
    from_scratch : bool
        Draw new weights for a module that is an instance, too.
    """
    net, rows = _cloned(net), np.arange(len(columns)) if rows is None else rows
    with seeded_for(net, seed), _interrupts_raised():
        _initialize(net, from_scratch)
        inputs, target = _training_data(net, X, columns, rows)
        try:
            with _epochs_reported(net):
                return _require_batches(net.partial_fit(inputs, target, **fit_params))
        except (RuntimeError, IndexError, TypeError):
            # where the module can't take these inputs at all, say so in our words
            _require_fitting(net, inputs)
            raise


def _require_batches(net):
    """Refuse a net whose loader had no batch for it."""
    if len(net.history) and net.history[-1].get("train_batch_count") == 0:
        raise ValueError(
            "The net's loader has no batch of training rows, so that nothing was trained: are "
            f"there fewer than batch_size={net.batch_size} rows, with drop_last? Take smaller "
            "batches."
        )
    return net


@contextmanager
def _epochs_reported(net):
    """Reports of the progress of a fit, by a callback that leaves no trace."""
    if not is_heard():
        yield
        return
    callback = "progress", _Epochs()
    net.callbacks_.append(callback)
    try:
        yield
    finally:
        if callback in net.callbacks_:  # a callback of the user's may have made them anew
            net.callbacks_.remove(callback)


class _Epochs(Callback):
    def on_epoch_end(self, net, **kwargs):
        report(len(net.history), net.max_epochs, "epochs")


def _training_data(net, X, columns, rows):
    """Rows of X, and their target, as a net is fitted to them."""
    target = net_target(net, columns)
    if is_dataset(X):
        whole = net.get_params(deep=False).get("iterator_train__collate_fn") is not None
        data = Labelled(opened(X, "X")[0], rows, target[rows], whole=whole)
        return data, target[rows]
    return net_input(net, rows_of(X, rows)), target[rows]


def _require_fitting(net, inputs):
    like = next(p for p in net.module_.parameters() if p.is_floating_point())
    x = to_batch(as_inputs(inputs), FEW, like.dtype, like.device)
    module, x = unwrapped(net.module_).eval(), list(x) if isinstance(x, tuple) else x
    with torch.no_grad():
        checked_forward(module, x)
        out = module(**x) if isinstance(x, dict) else module(x)
    if not isinstance(out, (torch.Tensor, tuple)):
        raise ValueError(
            f"The module returns a {type(out).__name__}, and skorch trains on tensors: wrap it in "
            "one that returns its logits."
        )


def as_trained(module, X, *, regressor=False):
    """A copy of a plain module as a trained net: it is used as it is."""
    module = accepted(unwrapped(module))  # a copy already, if it is in bfloat16
    select_parameters(module, None)  # there must be some
    try:
        with exclusive(module):
            module = copy.deepcopy(module)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            "net is a plain module that can't be copied, as it must be to come back as it was: "
            f"{error}. Pass FrozenEstimator of a skorch net that holds it."
        ) from error
    module.register_forward_hook(_logits_alone)
    module.register_forward_pre_hook(_several_apart)
    like = next(p for p in module.parameters() if p.is_floating_point())
    with borrowed(module):
        logits = checked_forward(module, to_batch(as_inputs(X), FEW, like.dtype, like.device))
    kind, options = NeuralNetClassifier, {"criterion": nn.CrossEntropyLoss}
    if regressor:
        kind, options = NeuralNetRegressor, {"criterion": nn.MSELoss}
    elif logits.shape[1] == 1:
        kind, options = NeuralNetBinaryClassifier, {"criterion": nn.BCEWithLogitsLoss}
    if isinstance(X, DataLoader):
        options["iterator_valid__collate_fn"] = X.collate_fn
    net = kind(module, train_split=None, verbose=0, device=str(like.device), **options)
    return FrozenEstimator(net.initialize())


def _several_apart(module, args):
    """Several inputs as the module takes them: skorch passes them as one list."""
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], (list, tuple)) else args


def _logits_alone(module, args, out):
    """What skorch takes, a tensor, of whatever a module returns."""
    return logits_in(out)


@contextmanager
def modes_kept(module):
    """The modes of a module and its parts come back."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def with_steps_of(net, X, columns, rows):
    """A clone that takes as many optimizer steps on some rows as the net does on all.

    Its epochs are scaled by the batches in one, as skorch's own loader counts them, and rounded.
    """
    batches = [_batches_of(net, X, columns, k) for k in (np.arange(len(columns)), rows)]
    epochs = round(net.max_epochs * batches[0] / batches[1])
    return _cloned(net).set_params(max_epochs=epochs)


def _batches_of(net, X, columns, rows):
    """Batches in an epoch of training."""
    net = _cloned(net)
    with seeded_for(net, 0):
        _initialize(net, False)
        data, _ = net.get_split_datasets(*_training_data(net, X, columns, rows))
        batches = net.get_iterator(data, training=True)
    if not (hasattr(batches, "__len__") and len(batches)):
        raise ValueError(
            f"budget='steps' counts the batches of an epoch; on {len(rows)} rows the net's loader "
            "has none, or does not say how many (drop_last? an iterator without a length?). Prune "
            "less, or use budget='epochs'."
        )
    return len(batches)


def _cloned(net):
    """A clone; a module that is an instance is copied while nobody else works on it."""
    with exclusive(net.module) if isinstance(net.module, nn.Module) else nullcontext():
        return clone(net)


def _initialize(net, from_scratch):
    if from_scratch and isinstance(net.module, nn.Module):
        for layer in net.module.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
    try:
        net.initialize()
    except ValueError as error:
        if "empty parameter list" not in str(error):
            raise
        raise ValueError(
            "The network has no parameters: there is nothing to train, and no tangent kernel."
        ) from error
    select_parameters(unwrapped(net.module_), None)  # some must be trainable


def seeded_for(net, seed):
    """The global generators, from which torch and skorch's splits draw, for a net's training."""
    cuda = str(net.device).startswith("cuda")
    return seeded(seed, [torch.device(net.device)] if cuda else [])


@contextmanager
def _interrupts_raised():
    """Raise a Ctrl-C that skorch swallows (early stopping raises the same exception)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous, interrupts = signal.getsignal(signal.SIGINT), []
    if not callable(previous):  # ignored, or handled outside of Python
        yield
        return

    def note(number, frame):
        interrupts.append(number)
        previous(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if interrupts:
        raise KeyboardInterrupt
