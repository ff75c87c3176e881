"""Better supervision from how a network learns: the paths of its predictions, and what they say."""

from ._paths import LearningPaths

__all__ = ["LearningPaths"]
