"""How many samples each sample helps, ignores or fights: counts over pairs."""

import torch

from .._runtime.progress import counted
from .bounds import Bounds, rows_and_columns
from .products import slices
from .reductions import panel_rows
from .task import Task

# of the levels that an entry can be on, from the most negative
CONTRADICTORY, UNRELATED, INTERCHANGEABLE = -2, 0, 2


def count_relations(kernel, threshold, threshold_unrelated, *, bounds=None, map=map):
    """Partners of each kind, of every sample.

    A pair is interchangeable where both of ``k_ij / k_ii`` and ``k_ij / k_jj`` are at least
    ``threshold``, contradictory where both are at most its negative, unrelated where both
    are in absolute value below ``threshold_unrelated`` or one of the two has no gradient, and
    else between. Pairs whose bounds lie in one of these ranges are not evaluated.

    Returns
    -------
    counts : tensor of shape (n, 3), int64
        Interchangeable, unrelated, contradictory.
    n_evaluated : int
        Entries of the kernel that were computed.
    """
    bounds = Bounds(kernel) if bounds is None else bounds
    n = len(bounds.order)
    thresholds = threshold, threshold_unrelated
    count = Task(_count, kernel.left, bounds, thresholds, kernel.tile)
    total, n_evaluated = torch.zeros(n, 3, dtype=torch.int64), bounds.n_evaluated
    panels = slices(n, panel_rows(kernel))
    for counts, evaluated in counted(map(count, panels), len(panels), "panels of the kernel"):
        total += counts
        n_evaluated += evaluated
    return total[torch.argsort(bounds.order.cpu())], n_evaluated


def _count(source, bounds, thresholds, step, panel):
    """Counts, in the bounds' order, over the pairs of a panel with itself and what follows."""
    order, n = bounds.order, len(bounds.order)
    rows = order[panel]
    features = source.take(rows)
    counts, n_evaluated = torch.zeros(n, 3, dtype=torch.int64, device=order.device), 0
    for tile in slices(n - panel.start, step):
        tile = slice(panel.start + tile.start, panel.start + tile.stop)
        cols = order[tile]
        low, high = bounds.between(rows, cols)
        limits = _limits(bounds, rows, cols, thresholds, bounds.scale)
        level = _level(low, *limits)
        pairs = torch.arange(panel.start, panel.stop, device=order.device)[:, None]
        pairs = pairs < torch.arange(tile.start, tile.stop, device=order.device)  # each once
        open_ = (level != _level(high, *limits)) & pairs
        r, c = rows_and_columns(open_)
        if len(r):
            block = features.take(r).gram(source.take(cols[c]))
            n_evaluated += block.numel()
            level[r[:, None], c] = _level(block, *_limits(bounds, rows[r], cols[c], thresholds, 1))
        for k, kind in enumerate((INTERCHANGEABLE, UNRELATED, CONTRADICTORY)):
            found = (level == kind) & pairs
            counts[panel, k] += found.sum(1)
            counts[tile, k] += found.sum(0)
    return counts.cpu(), n_evaluated


def _limits(bounds, rows, cols, thresholds, scale):
    """Least entries of interchangeable pairs, and of such that are not unrelated.

    Multiples of the larger and the smaller squared norm, in units of ``scale``; infinite where
    one of them is zero.
    """
    x, y = (bounds.diagonal[index].double() for index in (rows, cols))
    large, small = torch.maximum(x[:, None], y), torch.minimum(x[:, None], y)
    nothing = small <= 0
    large, small = large / scale, small / scale
    return (
        (thresholds[0] * large).masked_fill_(nothing, torch.inf).to(bounds.diagonal.dtype),
        (thresholds[1] * small).masked_fill_(nothing, torch.inf).to(bounds.diagonal.dtype),
    )


def _level(entry, interchangeable, related):
    """Where an entry is among the relations: it rises with the entry."""
    above = (entry >= related).byte() + (entry >= interchangeable).byte()
    below = ((entry <= -related) & (entry < 0)).byte() + (entry <= -interchangeable).byte()
    return above.char() - below.char()
