"""Clustering by farthest point traversal."""

from ._farthest_point import FarthestPointClustering
from ._null import null_features

__all__ = ["FarthestPointClustering", "null_features"]
