"""Clustering by farthest point traversal."""

from ._farthest_point import FarthestPointClustering

__all__ = ["FarthestPointClustering"]
