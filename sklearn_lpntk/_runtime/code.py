"""What makes up code: functions, classes and modules, with what they refer to."""

import functools
import types
from dataclasses import dataclass

import torch

from .libraries import is_at_its_name, is_library, version_of
from .names import all_names, global_names, imported_modules
from .values import Code, NoFingerprintError, content_of, library_name, text

DESCRIPTORS = (
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.ClassMethodDescriptorType,
)


@content_of.register(types.FunctionType)
def _(value):
    if is_at_its_name(value):
        return [library_name(value)]
    home = value.__globals__.get("__name__")
    names = all_names(value.__code__)
    closure = dict(zip(value.__code__.co_freevars, map(_content, value.__closure__ or ())))
    of_its_own = [value.__defaults__, value.__kwdefaults__, vars(value)]
    if is_library(home):  # a decorator's wrapper, or what a library's function returned
        name = text(f"{version_of(home)}: {home}.{value.__code__.co_qualname}")
        return [name, Code([_modules_by_use(closure, names), *of_its_own])]
    used = _globals_of(value) | imported_modules(
        value.__code__, value.__globals__.get("__package__")
    )
    seen = [_modules_by_use(closure, names), _modules_by_use(used, names)]
    name = text(f"{value.__module__}.{value.__qualname__}")
    return [name, value.__code__, Code([*seen, *of_its_own])]


def _globals_of(function):
    names = global_names(function.__code__)
    return {n: function.__globals__[n] for n in names if n in function.__globals__}


def _content(cell):
    try:
        return cell.cell_contents
    except ValueError:  # nothing was put there yet
        return None


@content_of.register(types.CodeType)
def _(value):
    names = value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars
    flags = value.co_flags, value.co_argcount, value.co_kwonlyargcount, value.co_posonlyargcount
    return [value.co_name, value.co_code, value.co_consts, value.co_exceptiontable, names, flags]


@content_of.register(types.MethodType)
def _(value):
    return [value.__func__, value.__self__]


@content_of.register(types.BuiltinFunctionType)
def _(value):
    owner = value.__self__
    if owner is not None and not isinstance(owner, types.ModuleType | type):
        return [text(value.__qualname__), owner]
    module = value.__module__ or getattr(owner, "__module__", None) or "builtins"
    if not is_library(module):  # compiled code of the user's can't be seen
        raise NoFingerprintError(value)
    return [text(f"{version_of(module)}: {module}.{value.__qualname__}")]


def _descriptor(value):
    return [text(value.__name__), value.__objclass__]


for _kind in DESCRIPTORS:
    content_of.register(_kind, _descriptor)


@content_of.register(staticmethod)
@content_of.register(classmethod)
def _(value):
    return [value.__func__]


@content_of.register(property)
def _(value):
    return [value.fget, value.fset, value.fdel]


@content_of.register(functools.cached_property)
def _(value):
    return [value.func]


@content_of.register(type(functools.lru_cache(lambda: None)))
def _(value):
    return [value.__wrapped__]


@content_of.register(torch._ops.OpOverload)
@content_of.register(torch._ops.OpOverloadPacket)
def _(value):
    if str(value).split(".")[0] not in ("aten", "prim", "prims"):
        raise NoFingerprintError(value)
    return [text(f"{version_of('torch')}: {value}")]


@content_of.register(type)
def _(value):
    if is_library(value.__module__) and "<locals>" not in value.__qualname__:
        return [library_name(value)]
    name = text(f"{value.__module__}.{value.__qualname__}")
    # Python adds names of its own to a class as it goes (__slotnames__)
    own = {k: v for k, v in vars(value).items() if _is_own(k, v)}
    return [name, Code([own]), value.__bases__, type(value)]


def _is_own(name, value):
    callables = types.FunctionType, staticmethod, classmethod, property
    is_called = isinstance(value, callables) or callable(value)
    return name != "_abc_impl" and (is_called or not name.startswith("__"))


# -- modules ------------------------------------------------------------------------------


@dataclass
class _ModuleInUse:
    """A user's module, in code with these names: of it counts what has one of them."""

    module: types.ModuleType
    names: frozenset
    inside: frozenset = frozenset()


def _modules_by_use(values, names, inside=frozenset()):
    """The values, with the users' modules among them as code with these names uses them."""
    return {
        name: _ModuleInUse(value, names, inside) if _is_users_module(value) else value
        for name, value in values.items()
    }


def _is_users_module(value):
    return isinstance(value, types.ModuleType) and not is_library(value.__name__)


@content_of.register(_ModuleInUse)
def _(value):
    module = value.module
    if id(module) in value.inside:
        return [text(module.__name__)]
    whole = {n: v for n, v in vars(module).items() if not n.startswith("__")}
    named = {n: v for n, v in whole.items() if n in value.names}
    inside = value.inside | {id(module)}
    return [text(module.__name__), _modules_by_use(named or whole, value.names, inside)]


@content_of.register(types.ModuleType)
def _(value):
    if is_library(value.__name__):
        return [text(f"{version_of(value.__name__)}: {value.__name__}")]
    return [_ModuleInUse(value, frozenset())]
