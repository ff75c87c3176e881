"""Layer rules: one small class per layer family, found by type."""

from .base import LayerRule
from .conv import ConvRule
from .embedding import EmbeddingBagRule, EmbeddingRule
from .linear import LinearRule
from .normalization import BatchNormRule, GroupNormRule, InstanceNormRule, LayerNormRule

RULES = (
    LinearRule,
    ConvRule,
    BatchNormRule,
    LayerNormRule,
    GroupNormRule,
    InstanceNormRule,
    EmbeddingRule,
    EmbeddingBagRule,
)

_BY_TYPE = {layer_type: rule for rule in RULES for layer_type in rule.layer_types}

__all__ = ["RULES", "LayerRule", "find_rule"]


def find_rule(module):
    """The rule class of a module, or None; a subclass counts if it keeps ``forward``."""
    for base in type(module).__mro__:
        if base in _BY_TYPE:
            rule = _BY_TYPE[base]
            if type(module).forward is base.forward and rule.supports(module):
                return rule
            return None
    return None
