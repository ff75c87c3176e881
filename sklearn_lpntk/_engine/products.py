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


def sum_columns(dtype):
    """Columns whose products are summed in the factors' own precision."""
    return BLOCKS * _column_block(dtype)


def padded(n_samples, n_cotangents, dtype):
    """The least number of samples, at least this one, of a product that is bit-stable."""
    if dtype == torch.float64:
        unit = DOUBLE_ROWS // math.gcd(DOUBLE_ROWS, n_cotangents)
        return max(1, -(-n_samples // unit)) * unit
    return max(n_samples, -(-MIN_ROWS // n_cotangents))


def product(x, y):
    """``x @ y.T``, bit-stable in the choice of rows, accumulated in blocks of columns.

    Of x with itself, by halves of its rows: products once only.
    """
    out = None
    for columns in slices(x.shape[1], sum_columns(x.dtype)) or [slice(0)]:
        left = x[:, columns]
        part = _square(left) if y is x else _block_product(left, y[:, columns])
        out = part if out is None else out.double().add_(part)
    return out


def _square(x):
    n = len(x)
    if n < 2 * DOUBLE_ROWS or x.device.type != "cpu":
        return _block_product(x, x)
    cut = n // 2 // DOUBLE_ROWS * DOUBLE_ROWS
    across = _block_product(x[:cut], x[cut:])
    top = torch.cat([_square(x[:cut]), across], 1)
    return torch.cat([top, torch.cat([across.T, _square(x[cut:])], 1)])


def _block_product(x, y):
    """That of some columns, with rows appended: to all columns at once they might fill memory."""
    step, shape = _column_block(x.dtype), (len(x), len(y))
    same, x = y is x, _with_rows(x)
    y = x if same else _with_rows(y)
    if x.shape[1] <= step:
        out = x @ y.T
    else:
        out = x.new_zeros(len(x), len(y))
        for left, right in zip(x.split(step, 1), y.split(step, 1)):
            out.addmm_(left, right.T)
    return out[: shape[0], : shape[1]]


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
    return [slice(start, stop) for start, stop in pairwise(bounds) if start < stop]


def summed(terms):
    """The sum along the first axis, in an order that is the same for every entry.

    What `torch.sum` does depends on where an entry lies in memory.
    """
    while len(terms) > 1:
        half = len(terms) // 2
        rest = terms[2 * half :]
        terms = torch.cat([terms[:half] + terms[half : 2 * half], rest])
    return terms[0]


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
