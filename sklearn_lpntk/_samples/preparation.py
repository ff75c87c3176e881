"""What makes one array of numbers of tables and sparse matrices."""

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import TruncatedSVD
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder

from .tables import columns_of_table, is_table

MAX_CATEGORIES = 32  # of a column; rarer ones are one
N_COMPONENTS = 100  # of sparse X
LEAST = 1e-6  # singular value, relative to the largest, of a direction that samples lie in


def preparation_of(X, seed):
    """A transformer of X to an array of numbers, or None where X is one already."""
    if issparse(X):
        n = max(1, min(N_COMPONENTS, X.shape[1] - 1, X.shape[0] - 1))
        return SparseEncoder(n, random_state=seed)
    if is_table(X) or (X.ndim == 2 and X.dtype.kind == "f" and np.isnan(X).any()):
        return TableEncoder()
    return None


class SparseEncoder(TruncatedSVD):
    """A truncated SVD without directions in which the samples do not lie.

    Their columns are rounding, and a network that standardises its inputs would blow them up:
    other samples may lie in them.
    """

    def fit_transform(self, X, y=None):
        """Fit, and the columns of X."""
        columns = super().fit_transform(X, y)
        empty = self.singular_values_ <= LEAST * self.singular_values_.max(initial=0)
        self.components_[empty], columns[:, empty] = 0, 0
        return columns


class TableEncoder(TransformerMixin, BaseEstimator):
    """Numbers and dates with the median for missing ones, and anything else one-hot.

    A missing number has a column that says so, a missing category is a category, and of the
    categories of a column all but the 31 most frequent are one.

    Attributes
    ----------
    numbers_, categories_ : list of int
        The columns of either kind.
    imputer_, one_hot_ : fitted SimpleImputer and OneHotEncoder
    """

    def fit(self, X, y=None):
        columns = columns_of_table(X)
        self.numbers_ = [k for k, c in enumerate(columns) if c.dtype.kind == "f"]
        self.categories_ = [k for k in range(len(columns)) if k not in self.numbers_]
        self.imputer_ = SimpleImputer(
            strategy="median", add_indicator=True, keep_empty_features=True
        )
        self.one_hot_ = OneHotEncoder(
            handle_unknown="infrequent_if_exist", max_categories=MAX_CATEGORIES, sparse_output=False
        )
        for step, table in zip((self.imputer_, self.one_hot_), self._tables(columns)):
            if table.shape[1]:
                step.fit(table)
        return self

    def transform(self, X):
        steps = self.imputer_, self.one_hot_
        tables = self._tables(columns_of_table(X))
        return np.hstack([s.transform(t) for s, t in zip(steps, tables) if t.shape[1]])

    def _tables(self, columns):
        """The numbers, and the other columns as text."""
        n = len(columns[0])
        numbers = np.empty((n, len(self.numbers_)))
        others = np.empty((n, len(self.categories_)), dtype=object)
        for k, at in enumerate(self.numbers_):
            numbers[:, k] = _as_numbers(columns[at], at)
        for k, at in enumerate(self.categories_):
            others[:, k] = [_as_text(v) for v in columns[at]]
        return numbers, others


def _as_text(value):
    """A category: 1 and 1.0 are one."""
    if value is None or value != value:
        return "(missing)"
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _as_numbers(column, at):
    if column.dtype.kind != "f":
        raise ValueError(
            f"Column {at} of X held numbers in fit, and now holds others, such as "
            f"{next(v for v in column if v is not None)!r}."
        )
    return column
