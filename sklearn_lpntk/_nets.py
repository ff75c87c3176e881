"""The one file that looks inside skorch nets; also the small default net."""

import functools
import signal
import threading
from contextlib import contextmanager

import numpy as np
import torch
from scipy.special import softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils.multiclass import check_classification_targets
from skorch import (
    NeuralNet,
    NeuralNetBinaryClassifier,
    NeuralNetClassifier,
    NeuralNetRegressor,
)
from torch import nn

from ._cache import cached


def is_skorch_net(estimator):
    """Whether an estimator is a skorch net, frozen or not."""
    return isinstance(unfrozen(estimator), NeuralNet)


def unfrozen(estimator):
    """The estimator inside a FrozenEstimator, or the estimator itself."""
    return estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator


def logits_module(module_or_net):
    """The plain module of a module or a fitted skorch net that emits logits."""
    candidate = unfrozen(module_or_net)
    if isinstance(candidate, nn.Module):
        return _unwrapped(candidate)
    if not isinstance(candidate, NeuralNet):
        raise TypeError(
            f"Expected a torch.nn.Module or a fitted skorch net; got {type(candidate).__name__}."
        )
    require_logits(candidate)
    if not getattr(candidate, "initialized_", False):
        raise NotFittedError(
            f"This {type(candidate).__name__} is not fitted yet; call its fit, or initialize."
        )
    return _unwrapped(candidate.module_)


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


def _unwrapped(module):
    """The module under torch.compile, DataParallel and DistributedDataParallel."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and isinstance(
            module, (nn.DataParallel, nn.parallel.DistributedDataParallel)
        ):
            inner = module.module
        if inner is None:
            return module
        module = inner


# -- training and labels ------------------------------------------------------------------


def checked_classes(y):
    """The sorted labels of a classification target with at least two of them."""
    check_classification_targets(y)
    classes = np.unique(y)
    if len(classes) < 2:
        raise ValueError(
            f"y has one class only ({classes[0]}); a classifier's kernel needs at least two "
            "classes."
        )
    return classes


def scoring_net(net, X, n_classes):
    """A skorch net that emits logits, or the default net where None is given."""
    if net is None:
        return default_net(X, n_classes)
    if not is_skorch_net(net) or isinstance(unfrozen(net), NeuralNetRegressor):
        raise TypeError(
            f"net must be a skorch classifier or FrozenEstimator of one; got "
            f"{type(unfrozen(net)).__name__}. Other classifiers go into RedundancyPruner's "
            "estimator=."
        )
    require_logits(unfrozen(net))
    return net


class ColumnEncoder:
    """Which logit column of a net each class of y has.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        The sorted labels.
    columns : ndarray of shape (n_classes,)
        Their logit columns.
    """

    def __init__(self, classes, columns):
        self.classes, self.columns = np.asarray(classes), np.asarray(columns, dtype=np.int64)

    @classmethod
    def for_net(cls, net, X, y):
        """Columns for a net and the labels it is used with.

        A fitted (frozen) net's columns have a meaning already: integer labels are columns,
        others are looked up in the net's ``classes_``. A net still to be trained gets the
        labels as they are where they are columns of its output, else 0, 1, ... in order.
        """
        classes = np.unique(y)
        known = _known_classes(net)
        if known is not None and not _are_columns(classes):
            return cls(classes, _look_up(classes, known))
        if isinstance(net, FrozenEstimator):
            if not _are_columns(classes):
                raise ValueError(
                    f"y contains the labels {classes[:5].tolist()}; with a frozen net, labels "
                    "must be integers (the net's logit columns), or the net needs classes= with "
                    "the label of every column."
                )
            return cls(classes, classes)
        n_columns = _n_columns(net, X) or len(classes)
        if n_columns < len(classes):
            raise ValueError(
                f"y has {len(classes)} classes, but the net has {n_columns} logits; widen its "
                "last layer."
            )
        if _are_columns(classes) and classes[-1] < n_columns:
            return cls(classes, classes)
        return cls(classes, np.arange(len(classes)))

    def encode(self, y):
        """Logit columns of labels."""
        return self.columns[np.searchsorted(self.classes, y)]

    def predict(self, net, X):
        """The labels that the fitted net predicts, among ``classes``."""
        if isinstance(net, NeuralNetBinaryClassifier):  # it has a threshold of its own
            position = np.searchsorted(self.columns, net.predict(X).astype(np.int64))
            return self.classes[np.minimum(position, len(self.classes) - 1)]
        return self.classes[self.probabilities(net, X).argmax(axis=1)]

    def probabilities(self, net, X):
        """Probabilities by the fitted net, in the order of ``classes``, conditioned on them."""
        proba = net.predict_proba(X)
        proba = proba[:, None] if proba.ndim == 1 else proba
        if (proba < 0).any() or np.abs(proba.sum(axis=1) - 1).max() > 1e-3:
            # skorch knows no link for a criterion of the user's: these are logits
            if proba.shape[1] == 1:
                proba = np.hstack([np.zeros_like(proba), proba])
            return softmax(proba[:, self.columns], axis=1)
        proba = np.maximum(proba[:, self.columns], np.finfo(proba.dtype).tiny)
        return proba / proba.sum(axis=1, keepdims=True)


def _are_columns(classes):
    return np.issubdtype(classes.dtype, np.integer) and classes[0] >= 0


def _known_classes(net):
    """The labels of a net's columns where it was told or has learnt them."""
    inner = unfrozen(net)
    if getattr(inner, "classes", None) is not None and len(inner.classes):
        return np.asarray(inner.classes)
    if isinstance(net, FrozenEstimator):
        return getattr(inner, "classes_inferred_", None)
    return None


def _look_up(classes, known):
    missing = np.setdiff1d(classes, known)
    if len(missing):
        raise ValueError(
            f"y contains the labels {missing.tolist()}, which are not among the net's "
            f"classes_ {known.tolist()}."
        )
    order = np.argsort(known)
    return order[np.searchsorted(known[order], classes)]


# -- training -----------------------------------------------------------------------------


def _trial(net):
    """The module of a clone of a net, initialised; None where only training shapes it."""
    trial = clone(net)
    try:
        with _seeded(net, 0):
            trial.initialize()
    except Exception:  # callbacks may shape the module only when training begins
        return None
    return _unwrapped(trial.module_)


def _n_columns(net, X):
    """Number of classes that a net still to be trained can tell, or None."""
    module = _trial(net)
    if module is None:
        return None
    x = torch.as_tensor(net_input(net, X[:2])).to(next(module.parameters()).device)
    try:
        with torch.no_grad(), _seeded(net, 0):
            out = module.eval()(x)
    except Exception:  # the same; a real misfit is reported when the net is trained
        return None
    out = out[0] if isinstance(out, tuple) else out
    return max(2, out.shape[1]) if out.ndim > 1 else 2


def net_input(net, X):
    """X as the net takes it: floats in its own precision, integers as int64."""
    X = np.asarray(X)
    dtype = _parameter_dtype(unfrozen(net)) if X.dtype.kind == "f" else np.int64
    return np.require(X.astype(dtype, copy=False), requirements="W")


def _parameter_dtype(net):
    module = getattr(net, "module_", None) or (
        net.module if isinstance(net.module, nn.Module) else _trial(net)
    )
    for parameter in module.parameters() if module is not None else ():
        if parameter.is_floating_point():
            return str(parameter.dtype).removeprefix("torch.")
    return "float32"


def net_target(net, columns):
    """Logit columns as the net's criterion takes them."""
    binary = isinstance(unfrozen(net), NeuralNetBinaryClassifier)
    return columns.astype(np.float32 if binary else np.int64)


def trained(net, X, columns, seed, memory):
    """The net trained on X, found in the cache, or a frozen one as it is; and its cache key."""
    if isinstance(net, FrozenEstimator):
        return unfrozen(net), ("frozen", unfrozen(net), X, columns)
    key = "net", net, X, columns, seed
    return cached(memory, fit_net, key, net, X, columns, seed), key


def fit_net(net, X, columns, seed, *, from_scratch=False, **fit_params):
    """A clone of the net, trained; the caller's global random state stays untouched.

    ``from_scratch`` draws new weights for a module that is an instance, too.
    """
    net = clone(net)
    with _seeded(net, seed), _interrupts_raised():
        if from_scratch and isinstance(net.module, nn.Module):
            for layer in net.module.modules():
                if hasattr(layer, "reset_parameters"):
                    layer.reset_parameters()
        try:
            return net.fit(net_input(net, X), net_target(net, columns), **fit_params)
        except RuntimeError as error:
            if np.asarray(X).dtype.kind == "f":
                raise
            raise ValueError(
                f"The net could not be trained on X of dtype {np.asarray(X).dtype}, which it is "
                "given as integers; for a net that takes numbers (no embedding) pass "
                f"X.astype(numpy.float32). Original error: {error}"
            ) from error


@contextmanager
def _seeded(net, seed):
    """Seeds torch and numpy (from which skorch's splits draw), and restores their states."""
    devices = [torch.device(net.device)] if str(net.device).startswith("cuda") else []
    state = np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            yield
    finally:
        np.random.set_state(state)


@contextmanager
def _interrupts_raised():
    """Raise a Ctrl-C that skorch swallows (early stopping raises the same exception)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous, interrupts = signal.getsignal(signal.SIGINT), []

    def note(number, frame):
        interrupts.append(number)
        if callable(previous):
            previous(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if interrupts:
        raise KeyboardInterrupt


# -- the default net ----------------------------------------------------------------------


class DefaultModule(nn.Module):
    """Standardised inputs, then two hidden layers: convolutions for images, else dense.

    Parameters
    ----------
    input_shape : tuple of int
        Shape of one sample: (C, H, W) for images, anything else is flattened.
    n_logits : int
    location, scale : float
        Of the inputs.
    """

    def __init__(self, input_shape, n_logits, location=0.0, scale=1.0):
        super().__init__()
        self.register_buffer("location", torch.as_tensor(location, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32))
        if len(input_shape) == 3:
            hidden = (
                nn.Conv2d(input_shape[0], 16, 3, padding=1, stride=2),
                nn.ReLU(),
                nn.Conv2d(16, 32, 3, padding=1, stride=2),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(4),
                nn.Flatten(),
            )
            width = 32 * 16
        else:
            n_inputs = int(np.prod(input_shape))
            hidden = nn.Flatten(), nn.Linear(n_inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()
            width = 64
        self.layers = nn.Sequential(*hidden, nn.Linear(width, n_logits))

    def forward(self, x):
        return self.layers((x.to(self.scale.dtype) - self.location) / self.scale)


def default_net(X, n_classes):
    """A small classifier for data of any shape, trained in seconds."""
    X = np.asarray(X)
    axes = 0 if X.ndim == 2 else None  # images are standardised as a whole
    location, scale = X.mean(axis=axes), X.std(axis=axes)
    return NeuralNetClassifier(
        DefaultModule,
        module__input_shape=X.shape[1:],
        module__n_logits=n_classes,
        module__location=location,
        module__scale=np.where(scale > 0, scale, 1.0),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.01,
        # at least 200 steps, as far as 60 epochs go
        max_epochs=int(np.clip(np.ceil(200 * 64 / len(X)), 10, 60)),
        batch_size=64,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
