"""The features of a set of samples: their factors, layer by layer."""

import torch

from .factors import alike, pad_samples, padded
from .session import full_precision


class Features:
    """Per-sample gradients of n samples and R cotangents each, as a dict of factors.

    ``v`` are the cotangents, of shape (n, R, K), in the dtype and on the device of the
    factors: a layer may be missing from the dict, they never are.
    """

    in_memory = True
    uses_network = False

    def __init__(self, factors, v):
        self.factors, self.v = factors, v
        self.n_samples, self.n_cotangents, self.n_logits = v.shape
        self.dtype, self.device = v.dtype, v.device

    @property
    def columns(self):
        """How many columns of phi each factor has, in order: dict of key -> int."""
        return {key: factor.n_columns for key, factor in self.factors.items()}

    @property
    def tensors(self):
        return [self.v, *(t for f in self.factors.values() for t in f.tensors)]

    @property
    def layout(self):
        """What batches must share to be written into one array."""
        return [(key, f.layout) for key, f in self.factors.items()], self.v.shape[1:]

    def empty(self, n_samples):
        """Features of this layout, with room for other samples."""
        factors = {key: factor.empty(n_samples) for key, factor in self.factors.items()}
        return Features(factors, self.v.new_empty(n_samples, *self.v.shape[1:]))

    @property
    def sample_bytes(self):
        """Memory that the factors of one sample take, rounded up."""
        return -(-sum(t.numel() * t.element_size() for t in self.tensors) // self.n_samples)

    def __sizeof__(self):  # schedulers of other processes ask how much there is to send
        return object.__sizeof__(self) + self.sample_bytes * self.n_samples

    @classmethod
    def cat(cls, batches):
        """Stack batches; a layer that some batch never called contributes zeros there."""
        factors = {}
        for key in dict.fromkeys(key for batch in batches for key in batch.factors):
            some = next(b.factors[key] for b in batches if key in b.factors)
            # popped: the parts of one layer are freed before the next one is stacked
            parts = [b.factors.pop(key, None) or some.zeros(b.n_samples) for b in batches]
            parts = alike(parts)
            factors[key] = parts[0].cat(parts)
        return cls(factors, torch.cat([b.v for b in batches]))

    def take(self, rows):
        """The samples of a slice or an index tensor, in its order."""
        factors = {key: factor.take(rows) for key, factor in self.factors.items()}
        return Features(factors, self.v[rows])

    def to(self, target):
        """The same in another dtype, or on another device."""
        factors = {key: factor.to(target) for key, factor in self.factors.items()}
        return Features(factors, self.v.to(target))

    def gram(self, other):
        """The (n R, m R) kernel block with other features.

        Bit-stable: an entry is the same whichever rows are computed beside it, for tiles
        are padded to sizes for which matrix products are.
        """
        n, m, R = self.n_samples, other.n_samples, self.n_cotangents
        rows, cols = padded(n, self.dtype), padded(m, self.dtype)
        out = self.v.new_zeros(rows * R, cols * R)
        with full_precision(self.device):
            for key, factor in self.factors.items():
                if key in other.factors:
                    left, right = alike([factor, other.factors[key]])
                    pad_samples(left, rows).add_gram(pad_samples(right, cols), out)
        return out[: n * R, : m * R]

    def diagonal(self):
        """Squared norms of the features, of shape (n R,), by the same products as `gram`."""
        parts = [self.take(rows) for rows in slices(self.n_samples, padded(1, self.dtype))]
        return torch.cat([part.gram(part).diagonal() for part in parts])

    def materialise(self, columns=None):
        """phi of shape (n R, d), layer by layer.

        ``columns`` is the layout of other features to follow, as their `columns` tell it.
        """
        phi = []
        for key, width in (self.columns if columns is None else columns).items():
            if key in self.factors:
                with full_precision(self.device):
                    phi.append(self.factors[key].materialise().phi)
            else:
                phi.append(self.v.new_zeros(self.n_samples * self.n_cotangents, width))
        return torch.cat([self.v.new_zeros(self.n_samples * self.n_cotangents, 0), *phi], 1)

    def weighted_sums(self, V):
        """``phi^T V`` for V of shape (n R, p), layer by layer: dict of key -> (p, P)."""
        weights = V.unflatten(0, (-1, self.n_cotangents))
        with full_precision(self.device):
            return {
                key: torch.stack([factor.weighted_sum(weights[:, :, p]) for p in range(V.shape[1])])
                for key, factor in self.factors.items()
            }

    def dots(self, sums, n_columns):
        """``phi @ sums`` for such sums, of shape (n R, n_columns)."""
        out = self.v.new_zeros(self.n_samples, self.n_cotangents, n_columns)
        with full_precision(self.device):
            for key, factor in self.factors.items():
                for p in range(n_columns if key in sums else 0):
                    out[:, :, p] += factor.dot(sums[key][p])
        return out.flatten(0, 1)


class Collected:
    """Batches of features, written into arrays for all samples as they come.

    Batches of another layout (other layers, forms or numbers of positions) are kept beside
    and stacked in the end, which takes twice the memory.
    """

    def __init__(self, n_samples):
        self._n, self._parts, self._filled = n_samples, [], 0

    def add(self, batch):
        """Take in the next batch."""
        if batch.n_samples == self._n:
            self._parts.append(batch)
            return
        if not self._parts:
            self._parts.append(batch.empty(self._n))
        rows = slice(self._filled, self._filled + batch.n_samples)
        if len(self._parts) == 1 and self._parts[0].layout == batch.layout:
            for target, given in zip(self._parts[0].take(rows).tensors, batch.tensors):
                target.copy_(given)
            self._filled = rows.stop
        else:
            self._parts.append(batch)

    def features(self):
        """All batches."""
        if len(self._parts) > 1:
            self._parts[0] = self._parts[0].take(slice(0, self._filled))
            return Features.cat(self._parts)
        return self._parts[0]


def slices(n, step):
    """Consecutive slices of ``step`` that cover range(n)."""
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]
