"""Warnings that the library emits."""

__all__ = ["AutogradRuleWarning", "ProbabilityOutputWarning"]


class AutogradRuleWarning(UserWarning):
    """Some parameters have no layer rule and take the exact but slow autograd rule."""


class ProbabilityOutputWarning(UserWarning):
    """The network seems to emit probabilities where the kernel is defined on logits."""
