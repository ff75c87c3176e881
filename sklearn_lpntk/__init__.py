"""Tangent kernels of labelled samples, where scikit-learn users already are."""

from ._transformer import LpNTKTransformer
from ._version import __version__
from .cluster import FarthestPointClustering
from .pruning import RedundancyPruner

__all__ = ["FarthestPointClustering", "LpNTKTransformer", "RedundancyPruner", "__version__"]
