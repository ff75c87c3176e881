"""Pruning of redundant training samples."""

from ._pruner import RedundancyPruner

__all__ = ["RedundancyPruner"]
