"""What is read off the kernel without ever holding it: maxima of rows."""

import torch


def off_diagonal_maxima(operator):
    """``max_{j != i} K_ij`` of a symmetric operator, and its lowest argmax.

    Returns
    -------
    maxima : tensor of shape (n,), -inf where there is no other sample
    argmax : tensor of shape (n,), int64, -1 there
    """
    n = operator.shape[0]
    device = operator._features.device
    maxima = torch.full((n,), -torch.inf, dtype=operator._features.dtype, device=device)
    argmax = torch.full((n,), -1, dtype=torch.int64, device=device)
    # a row meets its columns in ascending order: those below it come from earlier tiles,
    # transposed; so an equal later one never replaces the lowest
    for rows, cols, tile in operator._tiles():
        if rows == cols:
            tile.fill_diagonal_(-torch.inf)
        else:
            _raise_maxima(maxima, argmax, cols, rows, tile.T)
        _raise_maxima(maxima, argmax, rows, cols, tile)
    return maxima, argmax


def _raise_maxima(maxima, argmax, rows, cols, tile):
    best = tile.argmax(1)
    value = tile.gather(1, best[:, None])[:, 0]
    better = value > maxima[rows]
    maxima[rows] = torch.where(better, value, maxima[rows])
    argmax[rows] = torch.where(better, best + cols.start, argmax[rows])
