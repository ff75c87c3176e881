"""Products of rows that are the same to the bit in whatever tile they are computed."""

import math
from itertools import pairwise

import torch

# sgemm is bit-stable in the choice of rows from 16 rows on, dgemm for multiples of 48
MIN_ROWS = 16
DOUBLE_ROWS = 48
# long dot products are accumulated in blocks: less rounding, and some processors are bit-stable
# up to these lengths only
COLUMN_BLOCK = {torch.float64: 192}
OTHER_COLUMN_BLOCK = 384
BLOCKS = 64  # summed in the factors' own precision; more of them in double precision


def _column_block(dtype):
    """Columns in one product of many."""
    return COLUMN_BLOCK.get(dtype, OTHER_COLUMN_BLOCK)


def padded(n_samples, n_cotangents, dtype):
    """The least number of samples, at least this one, of a product that is bit-stable."""
    if dtype == torch.float64:
        unit = DOUBLE_ROWS // math.gcd(DOUBLE_ROWS, n_cotangents)
        return max(1, -(-n_samples // unit)) * unit
    return max(n_samples, -(-MIN_ROWS // n_cotangents))


def product(x, y):
    """``x @ y.T``, bit-stable in the choice of rows, accumulated in blocks of columns."""
    n, m, step = len(x), len(y), _column_block(x.dtype)
    same, x = y is x, _with_rows(x)
    y = x if same else _with_rows(y)
    if x.shape[1] <= step:
        return (x @ y.T)[:n, :m]
    out = None
    for start in range(0, x.shape[1], BLOCKS * step):
        part = x.new_zeros(len(x), len(y))
        for first in range(start, min(start + BLOCKS * step, x.shape[1]), step):
            block = slice(first, first + step)
            part.addmm_(x[:, block], y[:, block].T)
        if out is None and start + BLOCKS * step >= x.shape[1]:
            return part[:n, :m]
        out = part.double() if out is None else out.add_(part)
    return out[:n, :m]


def _with_rows(x):
    """A matrix with rows of zeros appended up to a number that makes products bit-stable."""
    missing = padded(len(x), 1, x.dtype) - len(x)
    return torch.cat([x, x.new_zeros(missing, x.shape[1])]) if missing else x


def lengths(x):
    """Norms along the last axis; squares of what single precision holds may leave its range."""
    return torch.linalg.vector_norm(x, dim=-1, dtype=torch.float64)


def scaled(rows, R):
    """Rows of the kernel of a slice of samples."""
    return slice(rows.start * R, rows.stop * R)


def even_slices(n, step, dtype):
    """Slices of at most ``step`` samples, none of them left with a few rows."""
    unit = DOUBLE_ROWS if dtype == torch.float64 else 1
    pieces = -(-n // step)
    bounds = [n // unit * k // pieces * unit for k in range(pieces)] + [n]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def position_gram(x, y):
    """Products of all rows of two (T, rows, P) stacks."""
    return product(x.reshape(-1, x.shape[2]), y.reshape(-1, y.shape[2])).to(x.dtype)


def paired_gram(x, y, R, S):
    """Products of every two samples, without columns that are zero for all scalars of one.

    Of a unit that a ReLU shuts off, no logit knows; two samples share a quarter of them.
    """
    x, y = x.unflatten(0, (-1, R)), y.unflatten(0, (-1, S))
    out = x.new_empty(len(x), R, len(y), S)
    alive = [(y_j != 0).any(0) for y_j in y]
    for i, x_i in enumerate(x):
        own = (x_i != 0).any(0)
        for j, y_j in enumerate(y):
            shared = (own & alive[j]).nonzero()[:, 0]
            out[i, :, j] = product(x_i.index_select(1, shared), y_j.index_select(1, shared))
    return out.view(len(x) * R, len(y) * S)


def slices(n, step):
    """Consecutive slices of ``step`` that cover range(n)."""
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]
