"""What the functions of this subpackage refuse, in one voice."""

import math
import numbers
from contextlib import contextmanager

from .._engine.inputs import is_many, mapped, take


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
    shapes = _sample_shape(X), _sample_shape(X2)
    tokens = 0 if is_integer(X) else 1
    sequences = not is_many(X) and len(shapes[0]) == len(shapes[1]) > tokens
    if shapes[0] != shapes[1] and not (sequences and shapes[0][1:] == shapes[1][1:]):
        raise ValueError(
            f"{second} has samples of shape {shapes[1]}, {first} of shape {shapes[0]}; the "
            "network takes one kind."
        )


def is_integer(X):
    """Whether X is an array of integers, such as tokens."""
    return not is_many(X) and str(X.dtype).removeprefix("torch.").startswith("int")


def _sample_shape(X):
    """Shape of one sample, or of each part of it."""
    return mapped(lambda part: tuple(take(part, slice(0, 1)).shape[1:]), X)
