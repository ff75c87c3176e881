"""Random sketches: features in a few thousand numbers whose inner products are unbiased.

Two maps, chosen for each layer by its size:

* *Rotated count sketch* of the written-out gradient: cut it into pieces of ``n_components``
  columns, give every column a random sign and every piece a random rotation, and add the
  pieces up. Two columns meet with probability at most ``1 / n_components``, as under a
  count sketch, so its variance holds; but the additions run along memory.
* *TensorSketch* of ``sum_t g_t a_t^T`` for large layers: count sketches of g_t and of a_t,
  convolved by a fast Fourier transform, so that the outer product is never written out; or,
  for many positions, the sum written out and its columns added where that would put them.
"""

import hashlib
import math

import numpy as np
import torch

from .factors import Dense, Outer
from .features import Features
from .products import slices
from .session import full_precision
from .sparse import Lookup

WRITTEN_OUT = 2**24  # entries of a gradient that are written out at once
# nanoseconds on one core, measured: an entry of a gradient, what each position adds to that,
# an entry added at random, and one number in a transform (times its logarithm)
ENTRY, POSITION, RANDOM, TRANSFORM = 1.5, 0.02, 3.0, 0.13
LARGE = 60  # transforms that writing a layer out must cost: one position takes 3, many more


class Sketch:
    """A linear map of features to ``n_components`` columns, drawn from a seed.

    The standard error of an inner product is at most ``sqrt(2 / m)`` times the product of
    the norms for layers that are written out, as for a dense random projection of m
    components, and at most ``sqrt(11 / m)`` for those under TensorSketch [1]_.

    Draws depend on the seed and the layer's name alone: every batch is sketched alike.

    References
    ----------
    .. [1] Avron, Nguyen and Woodruff, "Subspace Embeddings for the Polynomial Kernel", NeurIPS
       2014, Lemma 14; Pham and Pagh, "Fast and Scalable Polynomial Kernels via Explicit Feature
       Maps", KDD 2013.
    """

    def __init__(self, n_components, seed):
        self.n_components, self.seed = n_components, seed
        self._draws = {}  # (key, what) -> tensors

    def __getstate__(self):
        return vars(self) | {"_draws": {}}

    def __call__(self, features):
        """The features with one dense factor in place of all."""
        out = features.spec.zeros(self.n_components)
        with full_precision(features.device):
            for key, factor in features.factors.items():
                self._add(key, factor, out)
        return Features({"sketch": Dense(out, features.n_cotangents)}, features.spec)

    def _add(self, key, factor, out):
        if isinstance(factor, Lookup):
            self._add_lookup(key, factor, out)
        elif factor.outer is None or not self._is_large(*factor.outer):
            self._add_pieces(key, factor, out)
        elif isinstance(factor, Outer) and self._is_short(factor):
            self._add_convolved(key, factor, out)
        else:
            self._add_scattered(key, factor, out)

    def _is_large(self, width, depth):
        """Whether a layer takes a TensorSketch; the same in every batch, whatever it holds."""
        return LARGE * self._transform_cost < ENTRY * width * depth

    @property
    def _transform_cost(self):
        return TRANSFORM * self.n_components * math.log2(self.n_components + 1)

    def _is_short(self, factor):
        """Whether transforms of all positions cost less than writing their sum out."""
        n_positions = len(factor.a)
        written = factor.n_columns * (RANDOM + POSITION * n_positions)
        return (2 * n_positions + 1) * self._transform_cost < written

    # -- rotated count sketch -------------------------------------------------------------

    def _add_pieces(self, key, factor, out):
        signs, shifts = self._columns(key, factor.n_columns, out)
        starts = range(0, factor.n_columns, self.n_components)
        for phi, part in self._written_out(factor, out):
            for start, shift in zip(starts, shifts):
                stop = start + self.n_components
                _add_rotated(phi[:, start:stop], signs[start:stop], shift, part)

    @staticmethod
    def _written_out(factor, out):
        """Gradients of a few samples at a time, and the rows of ``out`` that are theirs."""
        R = factor.n_cotangents
        step = max(1, WRITTEN_OUT // (factor.n_columns * R))
        for rows in slices(factor.n_samples, step):
            yield factor.take(rows).materialise().phi, out[rows.start * R : rows.stop * R]

    def _columns(self, key, n_columns, like):
        def draw(rng):
            shifts = rng.integers(self.n_components, size=-(-n_columns // self.n_components))
            return _signs(rng, n_columns, like), shifts.tolist()

        return self._drawn(key, "columns", draw)

    def _add_lookup(self, key, factor, out):
        """An embedding's gradient has T rows that are not zero: only these are added."""
        R, m, width = factor.n_cotangents, self.n_components, factor.g.shape[2]
        signs, shifts = self._columns(key, factor.n_columns, out)
        shifts = torch.tensor(shifts, device=out.device)
        for index, g in zip(factor.a.repeat_interleave(R, 1), factor.g):
            column = index[:, None] * width + torch.arange(width, device=out.device)
            target = (column + shifts[column // m]) % m
            out.scatter_add_(1, target, g * signs[column])

    # -- TensorSketch ---------------------------------------------------------------------

    def _add_convolved(self, key, factor, out):
        R, total = factor.n_cotangents, 0
        hashes = [self._hash(key, what, n, out) for what, n in zip("ga", factor.outer)]
        for a, g in zip(factor.a, factor.g):
            spectrum = torch.fft.rfft(self._count(a, *hashes[1])).repeat_interleave(R, 0)
            total = total + spectrum * torch.fft.rfft(self._count(g, *hashes[0]))
        out += torch.fft.irfft(total, n=self.n_components)

    def _add_scattered(self, key, factor, out):
        """The same map, applied to the written-out sum."""
        (g_signs, g_target), (a_signs, a_target) = (
            self._hash(key, what, n, out) for what, n in zip("ga", factor.outer)
        )
        target = ((g_target[:, None] + a_target) % self.n_components).reshape(-1)
        signs = (g_signs[:, None] * a_signs).reshape(-1)
        for phi, part in self._written_out(factor, out):
            part.index_add_(1, target, phi * signs)

    def _count(self, x, signs, target):
        """Count sketch of the rows of a matrix."""
        out = x.new_zeros(len(x), self.n_components)
        return out.index_add_(1, target, x * signs)

    def _hash(self, key, what, n, like):
        def draw(rng):
            target = torch.from_numpy(rng.integers(self.n_components, size=n))
            return _signs(rng, n, like), target.to(like.device)

        return self._drawn(key, what, draw)

    def _drawn(self, key, what, draw):
        if (key, what) not in self._draws:
            # a child of the seed by the layer's name: independent of which layers a batch has
            name = hashlib.blake2b(f"{key}\0{what}".encode(), digest_size=16).digest()
            child = np.frombuffer(name, dtype=np.uint32).tolist()
            sequence = np.random.SeedSequence(self.seed, spawn_key=child)
            self._draws[key, what] = draw(np.random.default_rng(sequence))
        return self._draws[key, what]


def _signs(rng, n, like):
    signs = rng.integers(2, size=n, dtype=np.int8) * 2 - 1
    return torch.from_numpy(signs).to(like)


def _add_rotated(part, signs, shift, out):
    """Add ``part * signs``, rotated to begin in column ``shift``, to out."""
    fits = min(part.shape[1], out.shape[1] - shift)
    out[:, shift : shift + fits].addcmul_(part[:, :fits], signs[:fits])
    if fits < part.shape[1]:
        out[:, : part.shape[1] - fits].addcmul_(part[:, fits:], signs[fits:])
