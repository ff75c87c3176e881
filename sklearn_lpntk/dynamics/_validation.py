"""What the functions of this subpackage refuse, in one voice."""

import math
import numbers
from contextlib import contextmanager

from .._engine.inputs import is_many, mapped, parts_of, take


@contextmanager
def blamed(name):
    """Say which argument an error of the engine is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def require_learning_rate(learning_rate):
    """Refuse what is no step size."""
    if (
        not isinstance(learning_rate, numbers.Real)
        or isinstance(learning_rate, bool)
        or not (0 < learning_rate < math.inf)
    ):
        raise ValueError(f"learning_rate must be a finite number above 0; got {learning_rate!r}.")


def require_integer(name, value, *, least=1):
    """Refuse what is no int of at least ``least``."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be an int of at least {least}; got {value!r}.")


def require_same_samples(**named):
    """Refuse inputs that are not of one kind; lengths of sequences may differ."""
    (first, X), (second, X2) = named.items()
    parts, others = parts_of(X), parts_of(X2)
    same = parts.keys() == others.keys()
    if not (same and all(_alike(part, others[key]) for key, part in parts.items())):
        shapes = [mapped(_sample_shape, one) for one in (X2, X)]
        raise ValueError(
            f"{second} has samples of shape {shapes[0]}, {first} of shape {shapes[1]}; the "
            "network takes one kind."
        )


def _alike(part, other):
    """Whether two arrays have samples of one shape, but for the length of a sequence."""
    shape, shape2 = _sample_shape(part), _sample_shape(other)
    tokens = 0 if is_integer(part) else 1  # a sequence of tokens has one axis, of vectors two
    is_sequence = len(shape) == len(shape2) > tokens
    return shape == shape2 or (is_sequence and shape[1:] == shape2[1:])


def is_integer(X):
    """Whether X is an array of integers, such as tokens."""
    return not is_many(X) and str(X.dtype).removeprefix("torch.").startswith("int")


def _sample_shape(part):
    return tuple(take(part, slice(0, 1)).shape[1:])
