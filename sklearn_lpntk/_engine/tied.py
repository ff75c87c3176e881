"""The factor of a matrix that is an embedding and a layer: two sums, never written out."""

from .factors import Dense, Outer, pair_slices
from .products import position_gram, scaled, summed
from .sparse import Lookup


class Tied:
    """``sum_t g_t a_t^T + sum_u e_{i_u} h_u^T``: a language model's head, and its lookups.

    ``a: (T, n, D)`` and ``g: (T, n * R, O)`` belong to the layer, ``index: (U, n)`` and
    ``h: (U, n * R, D)`` to the lookups, as in `Outer` and `Lookup`.
    """

    outer = None  # no sum of outer products of vectors that are kept

    def __init__(self, a, g, index, h, n_cotangents):
        self.n_cotangents = n_cotangents
        self.layer = Outer(a, g, n_cotangents)
        self.table = Lookup(index, h, n_cotangents, g.shape[2])

    @property
    def n_samples(self):
        return self.layer.n_samples

    @property
    def n_columns(self):
        return self.layer.n_columns

    @property
    def tensors(self):
        return [*self.layer.tensors, *self.table.tensors]

    @property
    def settings(self):
        return (self.n_cotangents,)

    @property
    def layout(self):
        return type(self), self.layer.layout, self.table.layout

    def _of(self, layer, table):
        return Tied(layer.a, layer.g, table.a, table.g, self.n_cotangents)

    def take(self, rows):
        return self._of(self.layer.take(rows), self.table.take(rows))

    def to(self, target):
        return self._of(self.layer.to(target), self.table.to(target))

    def zeros(self, n_samples):
        return self._of(self.layer.zeros(n_samples), self.table.zeros(n_samples))

    def empty(self, n_samples):
        return self._of(self.layer.empty(n_samples), self.table.empty(n_samples))

    @staticmethod
    def cat(factors):
        layer = Outer.cat([f.layer for f in factors])
        return factors[0]._of(layer, Lookup.cat([f.table for f in factors]))

    def magnitudes(self):
        return self.layer.magnitudes() + self.table.magnitudes()

    def materialise(self):
        phi = self.layer.materialise().phi.add_(self.table.materialise().phi)
        return Dense(phi, self.n_cotangents)

    def traced(self):
        return self.materialise().traced()

    def weighted_sum(self, weights):
        return self.layer.weighted_sum(weights).add_(self.table.weighted_sum(weights))

    def dot(self, flat):
        return self.layer.dot(flat) + self.table.dot(flat)

    def gram(self, other):
        """The (n R, m R') products with the rows of another factor."""
        across = _across(self.layer, other.table)
        across = across + (across if other is self else _across(other.layer, self.table)).T
        return self.layer.gram(other.layer) + self.table.gram(other.table) + across


def _across(layer, table):
    """``sum_tu g_t[i_u] (a_t . h_u)`` for each row of a layer's and of a table's."""
    out = layer.g.new_empty(layer.g.shape[1], table.g.shape[1])
    R, S = layer.n_cotangents, table.n_cotangents
    for rows, cols in pair_slices(layer, table):
        n, m = rows.stop - rows.start, cols.stop - cols.start
        a, h = layer.a[:, rows], table.g[:, scaled(cols, S)]
        products = position_gram(a, h).view(len(a), n, 1, len(h), m, S)
        picked = layer.g[:, scaled(rows, R)][:, :, table.a[:, cols]].view(
            len(a), n, R, len(h), m, 1
        )
        products, picked = (x.permute(0, 3, 1, 2, 4, 5) for x in (products, picked))
        terms = (products * picked).flatten(0, 1)
        out[scaled(rows, R), scaled(cols, S)] = summed(terms).view(n * R, -1)
    return out
