"""torch data sets as rows that are read when they are asked for."""

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    default_collate,
)


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
            found = self._collated(rows)
            found = tuple(found) if isinstance(found, (tuple, list)) else (found,)
            if len(found) > 2:
                raise ValueError(
                    f"Items of a data set must be x, (x, y) or dicts of inputs; got {len(found)} "
                    "parts. Wrap it in one whose items are such."
                )
            self._last = rows, (*found, None)[:2]
        return self._last[1]

    def _collated(self, rows):
        items = [self.dataset[i] for i in rows]  # what it raises is its own
        try:
            return self.collate(items)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"Items {rows[0]} to {rows[-1]} of the data set can't be put into one batch (other "
                f"shapes, None, mixed kinds?): {error}"
            ) from error

    def labels(self):
        """The labels of all items, or None."""
        if self.batch(range(1))[1] is None:
            return None
        parts = [np.asarray(self.batch(range(k, k + 1))[1]) for k in range(len(self))]
        if any(part.size != 1 for part in parts):
            raise ValueError(
                "Items of the data set have labels of several numbers or none; one column of the "
                "logits is needed for each: pass y."
            )
        return np.concatenate([part.reshape(1) for part in parts])


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
        found = inputs if self._key is None else inputs[self._key]
        if isinstance(found, torch.Tensor):
            found = found.detach().cpu()
            found = found.float() if found.dtype == torch.bfloat16 else found
        return np.asarray(found)


def _opened(X, name):
    """The data set of a loader, and what collates its items."""
    collate = default_collate
    if isinstance(X, DataLoader):
        plain = type(X.sampler) is SequentialSampler and type(X.batch_sampler) is BatchSampler
        if not (plain and len(X.sampler) == len(X.dataset)) or X.drop_last:
            raise ValueError(
                f"{name} is a DataLoader that draws its samples in an order of its own, or not all "
                f"of them, so that rows could not be told apart: pass its data set, {name}.dataset."
            )
        X, collate = X.dataset, X.collate_fn
    if isinstance(X, IterableDataset) or not hasattr(X, "__len__"):
        raise ValueError(
            f"{name} is a data set without a length, whose items can't be read again in any order: "
            "pass a map-style data set, or arrays."
        )
    return X, collate
