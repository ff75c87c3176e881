"""The features of a set of samples: their factors, layer by layer."""

from dataclasses import dataclass, replace

import torch

from .factors import Dense
from .forms import alike
from .products import padded, slices
from .session import full_precision


@dataclass(frozen=True)
class Spec:
    """What features are, whatever factors they have: n samples, R scalars each, of K logits."""

    n_samples: int
    n_cotangents: int
    n_logits: int
    dtype: torch.dtype
    device: torch.device

    def zeros(self, *columns, dtype=None):
        """An array of zeros with a row for every scalar of every sample."""
        rows = self.n_samples * self.n_cotangents
        return torch.zeros(rows, *columns, dtype=dtype or self.dtype, device=self.device)


class Features:
    """Per-sample gradients of n samples and R scalars each, as a dict of factors.

    A layer that no sample of theirs called may be missing from the dict. ``structure`` tells
    how the factors belong to parameters; what is combined must agree in it.
    """

    in_memory = hands_out_views = True
    uses_network = False

    def __init__(self, factors, spec, structure=None):
        self.factors, self.spec, self.structure = factors, spec, structure or {}

    def __getattr__(self, name):
        if name in Spec.__dataclass_fields__:
            return getattr(self.spec, name)
        raise AttributeError(name)

    @property
    def columns(self):
        """How many columns of phi each factor has, in order: dict of key -> int."""
        return {key: factor.n_columns for key, factor in self.factors.items()}

    @property
    def tensors(self):
        return [t for f in self.factors.values() for t in f.tensors]

    @property
    def layout(self):
        """What batches must share to be written into one array."""
        keys = [(key, f.layout) for key, f in self.factors.items()]
        return keys, self.n_cotangents, self.structure

    def is_like(self, other):
        """Whether factors of both are of one form: else they are written out as a whole."""
        both = self.factors.keys() & other.factors.keys()
        return all(type(self.factors[k]) is type(other.factors[k]) for k in both)

    def empty(self, n_samples):
        """Features of this layout, with room for other samples."""
        factors = {key: factor.empty(n_samples) for key, factor in self.factors.items()}
        return Features(factors, replace(self.spec, n_samples=n_samples), self.structure)

    @property
    def sample_bytes(self):
        """Memory that the factors of one sample take, rounded up."""
        total = sum(t.numel() * t.element_size() for t in self.tensors)
        return max(1, -(-total // max(1, self.n_samples)))

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
        n_samples = sum(b.n_samples for b in batches)
        structure = {k: v for b in batches for k, v in b.structure.items()}
        alike_in_R = len({b.n_cotangents for b in batches}) == 1
        same = all(structure[k] == v for b in batches for k, v in b.structure.items())
        if not (alike_in_R and same):
            raise ValueError("Features that are laid out differently can't be stacked.")
        return cls(factors, replace(batches[0].spec, n_samples=n_samples), structure)

    def take(self, rows):
        """The samples of a slice or an index tensor, in its order."""
        factors = {key: factor.take(rows) for key, factor in self.factors.items()}
        n = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
        return Features(factors, replace(self.spec, n_samples=n), self.structure)

    def to(self, target):
        """The same in another dtype, or on another device."""
        factors = {key: factor.to(target) for key, factor in self.factors.items()}
        what = "dtype" if isinstance(target, torch.dtype) else "device"
        return Features(factors, replace(self.spec, **{what: target}), self.structure)

    def traced(self):
        """One scalar a sample in place of R: the kernel is ``1/R sum_r`` of equal scalars."""
        factors = {key: factor.traced() for key, factor in self.factors.items()}
        for factor in factors.values():
            factor.tensors[-1].mul_(self.n_cotangents**-0.5)
        return Features(factors, replace(self.spec, n_cotangents=1), self.structure)

    def gram(self, other):
        """The (n R, m R') kernel block with other features.

        Bit-stable: an entry is the same whichever rows are computed beside it, for products
        are padded to sizes for which they are. Every layer's tile starts from zero, and layers
        are summed in double precision: a small layer would be lost in a large sum.
        """
        tiles = []
        with full_precision(self.device):
            for key, factor in self.factors.items():
                if key in other.factors:
                    left, right = alike([factor, other.factors[key]])
                    tiles.append(left.gram(right))
            if not tiles:
                return self.spec.zeros(other.n_samples * other.n_cotangents)
            out = tiles[0] if len(tiles) == 1 else tiles[0].double()
            for tile in tiles[1:]:
                out += tile
        return out.to(self.dtype)

    def diagonal(self):
        """Squared norms of the features, of shape (n R,), by the same products as `gram`."""
        step = padded(1, self.n_cotangents, self.dtype)
        parts = [self.take(rows) for rows in slices(self.n_samples, step)]
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
                phi.append(self.spec.zeros(width))
        return torch.cat([self.spec.zeros(0), *phi], 1)

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
        out = self.spec.zeros(n_columns).unflatten(0, (self.n_samples, self.n_cotangents))
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
        self.n_samples, self._parts, self._filled = n_samples, [], 0

    def rooms(self, n_samples):
        """Where written-out gradients of the next batch will be: dict of key -> array."""
        if len(self._parts) != 1 or self._filled + n_samples > self.n_samples:
            return {}
        room = self._parts[0].take(slice(self._filled, self._filled + n_samples))
        return {key: f.phi for key, f in room.factors.items() if isinstance(f, Dense)}

    def add(self, batch):
        """Take in the next batch, unless it is in its room already."""
        if batch.n_samples == self.n_samples:
            self._parts.append(batch)
            return
        if not self._parts:
            self._parts.append(batch.empty(self.n_samples))
        rows = slice(self._filled, self._filled + batch.n_samples)
        if len(self._parts) == 1 and self._parts[0].layout == batch.layout:
            for target, given in zip(self._parts[0].take(rows).tensors, batch.tensors):
                if target.data_ptr() != given.data_ptr():
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
