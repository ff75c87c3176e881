"""Kernels of infinitely wide networks, and what they tell before any training."""

from ._kernels import InfiniteWidthConvNTK, InfiniteWidthNTK, infinite_ntk_kernel
from ._tunable import TunableNTK

__all__ = ["InfiniteWidthConvNTK", "InfiniteWidthNTK", "TunableNTK", "infinite_ntk_kernel"]
