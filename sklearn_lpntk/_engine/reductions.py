"""What is read off the kernel without ever holding it: extreme entries of its rows.

Of each row only those entries are evaluated that the bounds leave open, given what the entries
evaluated so far showed. The answer is that of the whole kernel, to the bit on a processor: an
entry is the same in whatever tile it is computed, it is passed over only where it is strictly
too small, and ties go to the lowest index.
"""

import sys
from functools import partial
from typing import NamedTuple

import torch

from .._runtime.progress import counted
from .bounds import Bounds, rows_and_columns
from .products import slices
from .task import Task

BOUNDED = ("cpu",)  # devices on which what bounds spare is worth their small products
GUESSES = 4  # tiles of columns whose best bound is tried first, for each row


class Extremes(NamedTuple):
    """The largest or smallest entries of each row off the diagonal.

    ``values`` and ``indices`` have shape (n, k), best first; infinite and -1 where there are
    fewer than k other samples. ``n_evaluated`` counts the entries of the kernel that were
    asked for, those with landmarks included; not the diagonal, nor what pads small tiles.
    """

    values: torch.Tensor
    indices: torch.Tensor
    n_evaluated: int


class Dominated(NamedTuple):
    """Which samples another one dominates; ``n_evaluated`` counts entries of the kernel."""

    mask: torch.Tensor
    n_evaluated: int


def row_extremes(kernel, k=1, *, largest=True, bounds=None, map=map):
    """The k largest (or smallest) entries of every row off the diagonal, and their columns.

    Parameters
    ----------
    kernel : Kernel
        Symmetric, with one cotangent a sample.
    bounds : Bounds, optional
        Of this kernel, where they are at hand.
    map : callable
        ``map(function, iterable)``, which may run the calls anywhere.

    Returns
    -------
    extremes : Extremes
    """
    bounds = Bounds(kernel) if bounds is None else bounds
    sign = 1 if largest else -1
    rule = partial(_Largest, k=k, dtype=kernel.left.dtype)
    (values, indices), count = _reduce(kernel, bounds, rule, sign, map)
    return Extremes(sign * values, indices, count)


def dominated(kernel, margin, *, bounds=None, map=map):
    """Which samples i have some j != i with ``k_ij > k_ii (1 + margin)``.

    Parameters
    ----------
    kernel, bounds, map : as in `row_extremes`
    margin : float

    Returns
    -------
    dominated : Dominated
    """
    bounds = Bounds(kernel) if bounds is None else bounds
    rule = partial(_Above, limits=above(bounds.diagonal, margin))
    (mask,), count = _reduce(kernel, bounds, rule, 1, map)
    return Dominated(mask, count)


def above(diagonal, margin):
    """What an entry must exceed to dominate, in double precision."""
    return diagonal.double() * (1 + margin)


def refined(kernel, candidates):
    """The largest entry of every row among some candidates for it, computed.

    Parameters
    ----------
    kernel : Kernel
    candidates : tensor of shape (n, k), int64
        Columns for each row, -1 for none.

    Returns
    -------
    extremes : Extremes
    """
    source, count, found = kernel.left, 0, []
    for panel in slices(source.n_samples, kernel.panel):
        rows = torch.arange(panel.start, panel.stop, device=source.device)
        own, features = candidates[panel].to(source.device), source.take(panel)
        state = _Largest(rows, 1, source.dtype)
        for cols in own[own >= 0].unique().split(kernel.tile):
            wanted = (own[:, :, None] == cols).any(1)
            where = wanted.any(1).nonzero()[:, 0]
            if len(where):
                block = features.take(where).gram(source.take(cols))
                state.update(where, cols, block.masked_fill(~wanted[where], -torch.inf))
                count += block.numel()
        found.append(state.result)
    values, indices = (torch.cat(parts) for parts in zip(*found))
    return Extremes(values, indices, count)


class _Largest:
    """The k largest entries of each row."""

    def __init__(self, rows, k, dtype):
        self.k = k
        self.values = torch.full((len(rows), k), -torch.inf, dtype=dtype, device=rows.device)
        self.indices = torch.full((len(rows), k), -1, device=rows.device)

    @property
    def limits(self):
        """Entries below these can't change the result any more."""
        return self.values[:, -1]

    def update(self, where, cols, block):
        """Take in the entries of some rows at ascending columns."""
        best, at = _first_largest(block, self.k)
        values = torch.cat([self.values[where], best], 1)
        indices = torch.cat([self.indices[where], cols[at]], 1)
        by_index = indices.argsort(1)  # so that of equal values the lowest index comes first
        values, indices = values.gather(1, by_index), indices.gather(1, by_index)
        values, at = _first_largest(values, self.k)
        self.values[where] = values
        self.indices[where] = indices.gather(1, at).masked_fill_(values == -torch.inf, -1)

    @property
    def result(self):
        return self.values, self.indices


def _first_largest(block, k):
    """The k largest of each row, in falling order; of equal ones the first."""
    values, places = [], []
    for _ in range(min(k, block.shape[1])):
        at = _first_argmax(block)
        values.append(block.gather(1, at))
        places.append(at)
        block.scatter_(1, at, -torch.inf)
    return torch.cat(values, 1), torch.cat(places, 1)


def _first_argmax(block):
    """The first of the largest entries of each row; a GPU's argmax takes any of them."""
    if block.device.type == "cpu":
        return block.argmax(1, keepdim=True)
    position = torch.arange(block.shape[1], device=block.device)
    largest = block == block.amax(1, keepdim=True)
    return torch.where(largest, position, block.shape[1]).amin(1, keepdim=True)


class _Above:
    """Whether a row has an entry above its limit; a row that has is finished."""

    def __init__(self, rows, limits):
        self.mask = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        self._limits = limits[rows]

    @property
    def limits(self):
        return self._limits.masked_fill(self.mask, torch.inf)

    def update(self, where, cols, block):
        self.mask[where] |= (block.double() > self._limits[where][:, None]).any(1)

    @property
    def result(self):
        return (self.mask,)


def _reduce(kernel, bounds, rule, sign, map):
    """Results of a rule for all rows, in the order of the samples, and entries evaluated."""
    search = _Search(kernel.tile, bounds, rule, sign)
    panels = slices(len(bounds.order), panel_rows(kernel))
    on_device = _search if kernel.left.device.type in BOUNDED else _search_all
    results = map(Task(on_device, kernel.left, search), panels)
    results, counts = zip(*counted(results, len(panels), "panels of the kernel"))
    back = torch.argsort(bounds.order)
    return [torch.cat(parts)[back] for parts in zip(*results)], bounds.n_evaluated + sum(counts)


def panel_rows(kernel):
    """Rows whose bounds with all samples, in single precision, take a part of the memory."""
    return max(16, min(kernel.panel, kernel.memory // (16 * kernel.left.n_samples)))


class _Search:
    """What a search for the entries that a rule may need is made of."""

    def __init__(self, tile, bounds, rule, sign):
        self.tile, self.rule, self.sign = tile, rule, sign
        self.bounds = bounds if sign > 0 else bounds.negated()

    def __sizeof__(self):
        return object.__sizeof__(self) + sys.getsizeof(self.bounds)


def _search(source, search, panel):
    """The rule's result for a slice of the order, and how many entries it took."""
    order = search.bounds.order
    rows = order[panel]
    state = _Panel(search, source, rows)
    upper = search.bounds.upper(rows, order)
    upper[:, panel].fill_diagonal_(-torch.inf)
    tiles = slices(len(order), search.tile)
    peaks = torch.stack([upper[:, tile].amax(1) for tile in tiles], 1)
    guesses = _guesses(upper, tiles, peaks)
    everything, cols = torch.arange(len(rows), device=rows.device), order[guesses].sort()[0]
    state.evaluate(everything, cols, state.features, source.take(cols))
    upper[:, guesses] = -torch.inf
    for t in peaks.amax(0).argsort(descending=True).tolist():
        where = (peaks[:, t] >= state.limits).nonzero()[:, 0]
        cols, at = order[tiles[t]].sort()
        state.decide(where, cols, upper[where, tiles[t]][:, at])
    return state.rule.result, state.n_evaluated


def _search_all(source, search, panel):
    """The same by all entries: large products suit a GPU better than few small ones."""
    state = _Panel(search, source, search.bounds.order[panel])
    everything = torch.arange(len(state.rows), device=state.rows.device)
    for tile in slices(source.n_samples, search.tile):
        cols = torch.arange(tile.start, tile.stop, device=state.rows.device)
        state.evaluate(everything, cols, state.features, source.take(tile))
    return state.rule.result, state.n_evaluated


def _guesses(upper, tiles, peaks):
    """Positions of the columns that promise most for some row."""
    best = peaks.topk(min(GUESSES, len(tiles)), 1)[1]
    found = []
    for t in best.unique().tolist():
        where = (best == t).any(1)
        found.append(upper[where, tiles[t]].argmax(1) + tiles[t].start)
    return torch.cat(found).unique()


class _Panel:
    """The state of one panel: its features, and what is known of its rows."""

    def __init__(self, search, source, rows):
        self.search, self.source, self.rows = search, source, rows
        self.features, self.rule, self.n_evaluated = source.take(rows), search.rule(rows), 0

    @property
    def limits(self):
        """In the units of the bounds, and above what was ruled out for good."""
        limits = (self.rule.limits / self.search.bounds.scale).float()
        return limits.clamp(min=torch.finfo(torch.float32).min)

    def decide(self, where, cols, upper):
        """Evaluate those entries among some rows and columns that their bounds leave open."""
        r, c = rows_and_columns(upper >= self.limits[where, None])
        if len(r) == 0:
            return
        where, cols = where[r], cols[c]
        self.evaluate(where, cols, self.features.take(where), self.source.take(cols))

    def evaluate(self, where, cols, left, right):
        """Evaluate some rows, with their features, at ascending columns, with theirs."""
        block = left.gram(right)
        self.n_evaluated += block.numel()
        if self.search.sign < 0:
            block = -block
        own = self.rows[where][:, None] == cols
        self.rule.update(where, cols, block.masked_fill(own, -torch.inf))
