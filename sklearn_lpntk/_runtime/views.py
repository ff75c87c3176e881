"""Modules in another form: with the names and parameters of the one they stand for."""

import copy
import inspect

from .turns import CALLED, MADE, ORIGINAL


def viewed(module, make, *given):
    """The module in a form whose forward is what ``make(module, *given)`` returns, a callable.

    It shares all that the module has, so that names and parameters are the same. Copies and
    pickles of it are made anew.
    """
    view, inner = copy.copy(module), copy.copy(module)
    inner.training = False
    vars(view).pop("forward", None)
    drop_wrapper(inner)
    for hooks in [name for name in vars(view) if "_hooks" in name]:
        vars(view)[hooks] = type(vars(view)[hooks])()  # they run inside
    original = vars(module).get(ORIGINAL, module)
    vars(view).update({ORIGINAL: original, MADE: (make, given), CALLED: make(inner, *given)})
    view.__class__ = type("View", (_View, type(module)), {})
    return view


def drop_wrapper(module):
    """Call a copy of a module as its class does, where a trainer has wrapped that.

    What wraps it (for mixed precision, a fused loss) would call the module that was copied.
    """
    own = vars(module).get("forward")
    own = getattr(own, "__func__", own)
    if own is not None and inspect.unwrap(own) is inspect.unwrap(type(module).forward):
        del vars(module)["forward"]


class _View:
    """What stands in front of the module's class."""

    def forward(self, *args, **kwargs):
        return vars(self)[CALLED](*args, **kwargs)

    def __deepcopy__(self, memo):
        make, given = vars(self)[MADE]
        return viewed(copy.deepcopy(vars(self)[ORIGINAL], memo), make, *given)

    def __reduce__(self):
        make, given = vars(self)[MADE]
        return viewed, (vars(self)[ORIGINAL], make, *given)
