"""Warnings and errors of the library's own."""

__all__ = [
    "AutogradRuleWarning",
    "DamagedStoreWarning",
    "ProbabilityOutputWarning",
    "StoreMismatchError",
]


class AutogradRuleWarning(UserWarning):
    """Some parameters have no rule and take the exact but slow autograd rule."""


class ProbabilityOutputWarning(UserWarning):
    """The network seems to emit probabilities where the kernel is defined on logits."""


class DamagedStoreWarning(UserWarning):
    """Files of a store are not what was written, and are computed again."""


class StoreMismatchError(ValueError):
    """A store holds the features of another network, data set, kernel or dtype."""
