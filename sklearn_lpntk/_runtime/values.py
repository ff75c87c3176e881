"""What makes up a value: raw bytes and other values, for each kind of data."""

import copyreg
import enum
import functools
import pickle
import struct
import sys
import types
import warnings
from dataclasses import dataclass
from functools import singledispatch
from pathlib import PurePath

import numpy as np
import torch
from sklearn.base import BaseEstimator
from skorch import NeuralNet, NeuralNetClassifier

from .libraries import is_at_its_name, is_library, version_of
from .turns import CALLED

# a subclass of one of these may have attributes beside its content
EXTENDED = str, bytes, int, float, list, tuple, dict, set, frozenset, np.ndarray, torch.Tensor
TORCH_ATTRIBUTES = {*vars(torch.nn.Module()), "_compiled_call_impl"}
HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"


class NoFingerprintError(Exception):
    """A value can't be compared with that of another run.

    Parameters
    ----------
    value : object
    path : tuple of str
        The names that lead to it.
    """

    def __init__(self, value, path=()):
        self.value, self.path = value, path

    def inside(self, name):
        return NoFingerprintError(self.value, (str(name), *self.path))

    def __str__(self):
        kind = type(self.value)
        return f"{'.'.join(self.path) or 'it'} ({kind.__module__}.{kind.__qualname__})"


@dataclass
class Label:
    """A part that has a name."""

    name: str
    value: object


@dataclass
class Unordered:
    """Parts that have no order."""

    values: list


class Code(list):
    """Parts of which some are used by code, as they are."""


def text(string):
    return memoryview(string.encode("utf-8", "surrogatepass"))


def library_name(value):
    """A part that stands for what a library has under a name."""
    module = value.__module__
    return text(f"{version_of(module)}: {module}.{value.__qualname__}")


def parts_of(value):
    """Raw bytes (as memoryview) and other values that make up a value."""
    kind = type(value)
    if isinstance(value, EXTENDED) and not is_library(kind.__module__):
        return [*content_of(value), kind, object.__getstate__(value)]
    return content_of(value)


def is_known_by_number(value):
    """Whether two references to it are told from references to two equal ones."""
    if isinstance(value, types.FunctionType | type):
        return True
    has_no_rule = content_of.dispatch(type(value)) is content_of.dispatch(object)
    return has_no_rule and hasattr(value, "__dict__")


# -- instances ----------------------------------------------------------------------------


@singledispatch
def content_of(value):
    """The parts, but for the attributes of a user's subclass of ``EXTENDED``."""
    kind = type(value)
    is_python = _is_written_in_python(kind)
    if not is_python and is_at_its_name(value):  # a function that a library compiled
        return [library_name(value)]
    if is_library(kind.__module__):  # which knows best what its values are
        try:
            return _reduced(value)
        except NoFingerprintError:
            if not is_python:
                raise
    return attributes_of(value) if is_python else [*attributes_of(value), *_reduced(value)]


def attributes_of(value):
    """Class, attributes and slots."""
    return [type(value), object.__getstate__(value)]


def _is_written_in_python(kind):
    """Whether attributes and slots are all that an instance holds: the rule of copyreg."""
    places = (
        len(copyreg._slotnames(kind)) + bool(kind.__dictoffset__) + bool(kind.__weakrefoffset__)
    )
    size = object.__basicsize__ + struct.calcsize("P") * places
    return not kind.__itemsize__ and kind.__basicsize__ <= size


def _reduced(value):
    """What a pickle of it would hold."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reduce = copyreg.dispatch_table.get(type(value))
            reduced = reduce(value) if reduce else value.__reduce_ex__(4)
    except Exception as error:  # whatever has no value: TypeError, ValueError, RuntimeError, ...
        raise NoFingerprintError(value) from error
    if isinstance(reduced, str):
        module = getattr(value, "__module__", None) or pickle.whichmodule(value, reduced)
        if getattr(sys.modules.get(module), reduced, None) is not value:
            raise NoFingerprintError(value)
        return [text(f"{version_of(module)}: {module}.{reduced}")]
    function, args, state, items, pairs = (*reduced, None, None, None)[:5]
    return [function, args, state, list(items or ()), list(pairs or ())]


# -- plain data ---------------------------------------------------------------------------


@content_of.register(types.NoneType)
@content_of.register(types.EllipsisType)
@content_of.register(types.NotImplementedType)
@content_of.register(int)
@content_of.register(float)
@content_of.register(complex)
@content_of.register(range)
@content_of.register(np.dtype)
@content_of.register(torch.dtype)
@content_of.register(torch.device)
@content_of.register(torch.layout)
@content_of.register(torch.memory_format)
def _(value):
    kind = next((k for k in (int, float, complex) if isinstance(value, k)), type(value))
    return [text(kind.__repr__(value))]


@content_of.register(str)
def _(value):
    return [text(str.__str__(value))]


@content_of.register(bytes)
@content_of.register(bytearray)
def _(value):
    return [memoryview(bytes(value))]


@content_of.register(PurePath)
def _(value):
    return [text(str(value))]


@content_of.register(enum.Enum)
def _(value):
    return [type(value), value._name_, value._value_]


@content_of.register(np.generic)
def _(value):
    return content_of(np.asarray(value))


@content_of.register(list)
@content_of.register(tuple)
def _(value):
    return list(value)


@content_of.register(dict)
@content_of.register(types.MappingProxyType)
def _(value):
    if all(type(key) is str for key in value):
        return [Label(key, value[key]) for key in sorted(value)]
    return [Unordered(list(value.items()))]


@content_of.register(set)
@content_of.register(frozenset)
def _(value):
    return [Unordered(list(value))]


@content_of.register(functools.partial)
def _(value):
    return [value.func, value.args, value.keywords, vars(value)]


# -- numbers ------------------------------------------------------------------------------


@content_of.register(np.ndarray)
def _(value):
    kind = text(f"{value.dtype}{value.shape}")
    if isinstance(value, np.ma.MaskedArray):
        return [kind, np.ma.getmaskarray(value), value.filled()]
    if value.dtype.hasobject:
        return [kind, value.reshape(-1).tolist()]
    numbers = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    return [kind, memoryview(numbers)]


@content_of.register(torch.Tensor)
def _(value):
    if torch.nn.parameter.is_lazy(value):
        return [text(f"{value.dtype}, not initialised")]
    trained = value.requires_grad if isinstance(value, torch.nn.Parameter) else ""
    kind = text(f"{value.dtype}{tuple(value.shape)}{trained}")
    if value.is_meta:
        return [kind]
    try:
        value = value.detach().to_dense() if value.layout != torch.strided else value.detach()
        value = value.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        return [kind, memoryview(value.view(torch.uint8).numpy())]
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise NoFingerprintError(value) from error


@content_of.register(torch.Generator)
def _(value):
    return [value.device, value.get_state()]


# -- networks and estimators --------------------------------------------------------------


@content_of.register(torch.nn.Module)
def _(value):
    if CALLED in vars(value):  # it computes what that does
        return [vars(value)[CALLED]]
    parameters = dict(value.named_parameters(remove_duplicate=False))
    buffers = dict(value.named_buffers(remove_duplicate=False))
    untied = [name for name, _ in value.named_parameters()]  # of tied ones the first alone
    modules = dict(value.named_modules(remove_duplicate=False))
    own = {name: _own_attributes(module) for name, module in modules.items()}
    return [parameters, buffers, untied, own]


def _own_attributes(module):
    """Class, attributes and hooks of one module; of a library's own what is public."""
    kind = type(module)
    if isinstance(module, torch.jit.ScriptModule):  # its code and constants can't be seen
        raise NoFingerprintError(module)
    if kind.__module__.startswith("torch._dynamo"):  # its compiled code is that of the inner one
        return [kind]
    hidden = ("_",) if is_library(kind.__module__) else ()
    own = {
        name: value
        for name, value in vars(module).items()
        if name not in TORCH_ATTRIBUTES and not name.startswith(hidden)
    }
    return [kind, own, [list(getattr(module, hooks).values()) for hooks in HOOKS]]


@content_of.register(BaseEstimator)
def _(value):
    return [type(value), value.get_params(deep=False)]


@content_of.register(NeuralNet)
def _(value):
    return [type(value), parameters_of(value), getattr(value, "module_", None), state_of(value)]


def parameters_of(net):
    """The parameters of a net, without what skorch lists beside them."""
    return {k: v for k, v in net.get_params(deep=False).items() if not k.startswith("_")}


def state_of(net):
    """What a net has besides its parameters and skorch's notes: what its methods may use."""
    known = parameters_of(net).keys() | _skorch_attributes()
    return {name: value for name, value in vars(net).items() if name not in known}


@functools.cache
def _skorch_attributes():
    net = NeuralNetClassifier(torch.nn.Linear(1, 1)).initialize()
    return {*vars(net), "classes_inferred_", "threshold_"}
