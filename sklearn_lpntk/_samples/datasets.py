"""torch data sets as rows that are read when they are asked for."""

import numpy as np
from torch.utils.data import DataLoader, Dataset, IterableDataset, SequentialSampler
from torch.utils.data import default_collate as _collated


def is_dataset(X):
    """Whether X is a torch data set, or a loader of one."""
    return isinstance(X, (Dataset, DataLoader))


def labels_of(inputs):
    """The labels that a data set gives with its inputs, read item by item; None without any."""
    rows = next(iter(inputs.values())) if isinstance(inputs, dict) else inputs
    return rows.items.labels() if isinstance(rows, Rows) else None


class Items:
    """A map-style data set: items x, (x, y), or dicts of inputs.

    Attributes
    ----------
    inputs : Rows, or dict of them
    """

    def __init__(self, X, name="X"):
        self.dataset, self.collate = _opened(X, name)
        if len(self.dataset) == 0:
            raise ValueError(f"{name} has no samples.")
        self._last = (None, None)
        first, _ = self.batch(range(1))
        many = isinstance(first, dict)
        self.inputs = {k: Rows(self, k) for k in first} if many else Rows(self, None)

    def __len__(self):
        return len(self.dataset)

    def batch(self, rows):
        """Inputs and labels (None where there are none) of some items, collated."""
        if self._last[0] != rows:
            found = self.collate([self.dataset[i] for i in rows])
            found = tuple(found) if isinstance(found, (tuple, list)) else (found,)
            if len(found) > 2:
                raise ValueError(
                    f"Items of a data set must be x, (x, y) or dicts of inputs; got {len(found)} "
                    "parts. Wrap it in one whose items are such."
                )
            self._last = rows, (*found, None)[:2]
        return self._last[1]

    def labels(self):
        """The labels of all items, or None."""
        if self.batch(range(1))[1] is None:
            return None
        parts = [self.batch(range(k, k + 1))[1] for k in range(len(self))]
        return np.concatenate([np.asarray(part).reshape(1) for part in parts])


class Rows:
    """One input of a data set, by slices."""

    def __init__(self, items, key):
        self.items, self._key = items, key
        first = self[:1]
        self.shape, self.dtype = (len(items), *first.shape[1:]), first.dtype

    def __len__(self):
        return len(self.items)

    def __getitem__(self, rows):
        inputs, _ = self.items.batch(range(len(self))[rows])
        return np.asarray(inputs if self._key is None else inputs[self._key])


def _opened(X, name):
    """The data set of a loader, and what collates its items."""
    collate = _collated
    if isinstance(X, DataLoader):
        if not isinstance(X.sampler, SequentialSampler):
            raise ValueError(
                f"{name} is a DataLoader that draws its samples in an order of its own, so that "
                f"rows could not be told apart: pass its data set, {name}.dataset."
            )
        X, collate = X.dataset, X.collate_fn
    if isinstance(X, IterableDataset) or not hasattr(X, "__len__"):
        raise ValueError(
            f"{name} is a data set without a length, whose items can't be read again in any order: "
            "pass a map-style data set, or arrays."
        )
    return X, collate
