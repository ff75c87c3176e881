"""What blocks are made with: random choices, and a register of them by what they take."""

import math
import random

import torch
from torch import nn

from ..nets import Wrap

BLOCKS, STARTS = {1: {}, 2: {}, 3: {}}, {}
VOCABULARY = 7


class Draw:
    """Random choices for a network of n samples; sizes are often those of batches."""

    def __init__(self, seed, n):
        self.random, self.n, self.kinds, self.depth = random.Random(seed), n, [], 0

    def size(self, most=6):
        """A small size, often that of a batch."""
        one = self.of(self.n, self.n, 2, 3, self.random.randint(1, most))
        return min(one, most)

    def of(self, *options):
        """One of the options."""
        return self.random.choice(options)

    def yes(self):
        """True or False."""
        return self.random.random() < 0.5

    def block(self, *shape):
        """A random block for a shape."""
        kind = self.random.choice(list(BLOCKS[len(shape)]))
        self.kinds.append(kind)
        return BLOCKS[len(shape)][kind](self, *shape)

    def vectors(self, D, out=None):
        """A random block of vectors, as ``(n, D) -> (n, out)``."""
        self.depth += 1
        if self.depth > 2:
            module, shape = nn.Linear(D, D), (D,)
        else:
            module, shape = self.block(D)
        self.depth -= 1
        last = nn.Linear(math.prod(shape), out or D)
        return module if shape == (out or D,) else nn.Sequential(module, nn.Flatten(), last)


def block(*where):
    """Register a block by its function's name."""

    def register(function):
        for axes in where:
            table = STARTS if axes == "tokens" else BLOCKS[axes]
            table[function.__name__] = function
        return function

    return register


def made(shape, forward, **parts):
    """A block of modules and parameters by name."""
    return Wrap(forward, **parts), shape


def weight(*shape):
    """A random parameter."""
    return nn.Parameter(torch.randn(shape) / max((1, *shape[-1:])) ** 0.5)


def randomised(module):
    """A normalisation with scales, shifts and running statistics away from their first values.

    For a batch of one, torch 2.13 takes the gradient of a BatchNorm's weight wrongly where that
    of its output is in another memory order: two views bring it into the usual one.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.rand_like(tensor) + 0.5
    return Wrap(lambda self, x: self.norm(x).flatten(1).view_as(x), norm=module)
