"""Features that are not all in memory: they are made when rows are taken.

Whatever hands out features by ``take(rows)`` can stand behind an operator: `Features`
themselves, a `Subset` of other features, those of a store, or those that are computed anew.
"""

import sys

import torch

from .inputs import n_rows, take


class Source:
    """What every source but `Features` itself shares.

    Attributes
    ----------
    n_samples, n_cotangents, n_logits : int
    dtype, device
    sample_bytes : int
        Memory that the factors of one sample take.
    columns : dict of str -> int
        Columns of phi, layer by layer.
    """

    in_memory = False
    hands_out_views = False  # of consecutive samples
    uses_network = False  # which threads can't share

    def __init__(self, like, n_samples):
        self.n_samples = n_samples
        for name in ("n_cotangents", "n_logits", "dtype", "device", "sample_bytes", "columns"):
            setattr(self, name, getattr(like, name))

    def take(self, rows):
        """`Features` of the samples of a slice or an index tensor, in its order."""
        raise NotImplementedError


class Subset(Source):
    """Some samples of another source, by their indices, without a copy."""

    def __init__(self, source, index):
        super().__init__(source, len(index))
        self.source, self.index = source, index.to(source.device)
        self.in_memory, self.uses_network = source.in_memory, source.uses_network

    def __sizeof__(self):
        return object.__sizeof__(self) + sys.getsizeof(self.source)

    def take(self, rows):
        return self.source.take(self.index[rows])


class Precise(Source):
    """Another source, whose products are computed in double precision.

    A kernel is positive semidefinite up to the rounding of its products: in single precision
    its smallest eigenvalues are off by 1e-7 of its largest one, which is more than a small ridge.
    """

    def __init__(self, source):
        super().__init__(source, source.n_samples)
        self.source, self.dtype = source, torch.float64
        self.uses_network = source.uses_network
        self.sample_bytes = 2 * source.sample_bytes

    def __sizeof__(self):
        return object.__sizeof__(self) + sys.getsizeof(self.source)

    def take(self, rows):
        return self.source.take(rows).to(torch.float64)


class Recomputed(Source):
    """Features that are computed anew at every use, by a forward and a backward pass.

    ``n_samples_passed`` counts the samples that went through the network since.
    """

    uses_network = True

    def __init__(self, extractor, X, y, sketch, like):
        super().__init__(like, n_rows(X))
        self._extractor, self._X, self._y, self._sketch = extractor, X, y, sketch
        self.n_samples_passed = 0

    def __sizeof__(self):
        return object.__sizeof__(self) + sys.getsizeof(self._extractor) + sys.getsizeof(self._X)

    def take(self, rows):
        rows = rows if isinstance(rows, slice) else rows.cpu().numpy()
        X, y = take(self._X, rows), self._y[rows]
        self.n_samples_passed += n_rows(X)
        # checked when they were computed first
        return self._extractor.again(X, y, self._sketch)


def subset(source, index):
    """Some samples of a source, by an index tensor; consecutive ones are not copied."""
    if len(index) and source.in_memory:
        first, last = int(index[0]), int(index[-1])
        run = last - first + 1 == len(index)
        if run and torch.equal(index.cpu(), torch.arange(first, last + 1)):
            whole = len(index) == source.n_samples
            return source if whole else source.take(slice(first, last + 1))
    return Subset(source, index)
