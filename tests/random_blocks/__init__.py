"""Blocks of random networks: vectors (D,), sequences (T, D), images (C, H, W) and tokens.

A block is a function ``block(draw, *shape) -> (module, shape of its output)``, samples first and
not counted. ``BLOCKS[len(shape)]`` maps the kinds that take such a shape to their blocks, and
``STARTS`` those that take integer tokens.
"""

import importlib

from .draw import BLOCKS, STARTS, VOCABULARY, Draw

__all__ = ["BLOCKS", "STARTS", "VOCABULARY", "Draw"]

for name in (  # in this order: a seed draws by it
    "products",
    "weights",
    "elementwise",
    "normalisations",
    "images",
    "sequences",
    "wirings",
    "tokens",
):
    importlib.import_module(f".{name}", __name__)
