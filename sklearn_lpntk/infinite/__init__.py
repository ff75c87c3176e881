"""Kernels of infinitely wide networks, and what they tell before any training."""

from ._classifier import RefurbishedClassifier
from ._entanglement import (
    ClassEntanglement,
    class_distance_ratio,
    class_entanglement,
    rank_biased_overlap,
)
from ._kernels import InfiniteWidthConvNTK, InfiniteWidthNTK, infinite_ntk_kernel
from ._labels import (
    LabelSchemes,
    block_diagonalization_error,
    block_diagonalization_gradient,
    compare_label_schemes,
    label_interaction_matrix,
    leave_one_out_scores,
)
from ._refurbisher import LabelRefurbisher
from ._selector import ArchitectureSelector
from ._tunable import TunableNTK

__all__ = [
    "ArchitectureSelector",
    "ClassEntanglement",
    "InfiniteWidthConvNTK",
    "InfiniteWidthNTK",
    "LabelRefurbisher",
    "LabelSchemes",
    "RefurbishedClassifier",
    "TunableNTK",
    "block_diagonalization_error",
    "block_diagonalization_gradient",
    "class_distance_ratio",
    "class_entanglement",
    "compare_label_schemes",
    "infinite_ntk_kernel",
    "label_interaction_matrix",
    "leave_one_out_scores",
    "rank_biased_overlap",
]
