"""Linearised networks: regression with tangent kernels, and what it says about a network."""

from ._estimators import NTKClassifier, NTKRegressor
from ._ranking import gcv_score, rank_networks

__all__ = ["NTKClassifier", "NTKRegressor", "gcv_score", "rank_networks"]
