"""Map-style data sets as rows that are read when they are asked for."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
    default_collate,
)

from .._engine.inputs import mapped, parts_of

LABELS = "labels", "label"  # what items that are dicts call theirs
READ_TWICE = 8  # items by which random ones are found
ARRAY_LIKE = "__array__", "__array_interface__", "__dataframe__", "shape", "dtype"


def is_dataset(X):
    """Whether X is a map-style data set, of torch or with its two methods, or a loader of one."""
    if isinstance(X, (Dataset, DataLoader)) or is_slices(X):
        return True
    known = isinstance(X, (Mapping, Sequence, np.ndarray, torch.Tensor, bytearray))
    if known or any(hasattr(X, name) for name in ARRAY_LIKE):
        return False
    return all(hasattr(type(X), name) for name in ("__getitem__", "__len__")) and not _is_buffer(X)


def is_slices(X):
    """Whether X is skorch's SliceDataset, which scikit-learn can index."""
    return isinstance(X, Sequence) and hasattr(X, "indices_") and hasattr(X, "dataset")


def _is_buffer(X):
    try:
        return memoryview(X) is not None
    except TypeError:
        return False


def labels_of(inputs):
    """The labels that a data set gives with its inputs, read item by item; None without any."""
    rows = next(iter(parts_of(inputs).values()))
    return rows.items.labels() if isinstance(rows, Rows) else None


class Items:
    """A map-style data set: items x, (x, y), or dicts of inputs, with ``labels`` or without.

    Attributes
    ----------
    inputs : Rows, or dict or tuple of them
    """

    def __init__(self, X, name="X"):
        self.dataset, self.collate = opened(X, name)
        if len(self.dataset) == 0:
            raise ValueError(f"{name} has no samples.")
        self._last = (None, None)
        self._require_same(name)
        first, _ = self.batch(range(1))
        keys = parts_of(first)
        self.inputs = mapped(lambda key: Rows(self, key), _keys_like(first, keys))

    def __len__(self):
        return len(self.dataset)

    def _require_same(self, name):
        """Refuse items that are drawn anew whenever they are read: some are read twice."""
        few = range(min(len(self), READ_TWICE))
        first, again = ([parts_of(self.batch(range(i, i + 1))[0]) for i in few] for _ in range(2))
        self._last = (None, None)
        for one, other in zip(first, again):
            for key, value in one.items():
                value = as_array(value)
                if not np.array_equal(
                    value, as_array(other[key]), equal_nan=value.dtype.kind == "f"
                ):
                    raise ValueError(
                        f"{name} is a data set whose items are other ones whenever they are read "
                        "(a random transform?), so a sample has no one kernel: pass the data set "
                        "with the transforms of evaluation."
                    )

    def batch(self, rows):
        """Inputs and labels (None where there are none) of some items, collated."""
        if self._last[0] != rows:
            found = self._collated(rows)
            if isinstance(found, Mapping):
                label = next((k for k in LABELS if k in found), None)
                found = {k: v for k, v in found.items() if k != label}, found.get(label)
            found = tuple(found) if isinstance(found, (tuple, list)) else (found,)
            if len(found) > 2:
                raise ValueError(
                    f"Items of a data set must be x, (x, y) or dicts of inputs; got {len(found)} "
                    "parts. Wrap it in one whose items are such."
                )
            inputs, labels = (*found, None)[:2]
            inputs = tuple(inputs) if isinstance(inputs, list) else inputs  # as it is collated
            self._last = rows, (inputs, labels)
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

    def labels(self, *, several=False):
        """The labels of all items, or None; ``several`` numbers an item, where that is allowed."""
        if self.batch(range(1))[1] is None:
            return None
        parts = [np.asarray(self.batch(range(k, k + 1))[1]) for k in range(len(self))]
        if several and len({part.shape for part in parts}) == 1:
            return np.concatenate(parts)
        if any(part.size != 1 for part in parts):
            raise ValueError(
                "Items of the data set have labels of several numbers or none; one column of the "
                "logits is needed for each: pass y."
            )
        return np.concatenate([part.reshape(1) for part in parts])


def _keys_like(inputs, keys):
    """The name of each input, in the form that they have."""
    if isinstance(inputs, Mapping):
        return {key: key for key in keys}
    return tuple(keys) if isinstance(inputs, tuple) else ""


class Rows:
    """One input of a data set, by slices."""

    def __init__(self, items, key):
        self.items, self._key = items, key
        first = self[:1]
        self.shape, self.dtype = (len(items), *first.shape[1:]), first.dtype

    def __len__(self):
        return len(self.items)

    def __getitem__(self, rows):
        return self._part(range(len(self))[rows])

    def take_rows(self, rows):
        """Some rows, in one batch: a collate_fn may pad them to one length."""
        return self._part(tuple(rows.tolist()))

    def _part(self, rows):
        inputs, _ = self.items.batch(rows)
        return as_array(parts_of(inputs)[self._key])


def as_array(value):
    """A part of a batch as an array."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = value.float() if value.dtype == torch.bfloat16 else value
    return np.asarray(value)


class Labelled(Dataset):
    """Some items of a data set, with labels of ours in place of their own.

    Parameters
    ----------
    dataset : map-style data set
    rows, labels : array-like of shape (n_rows,)
    whole : bool
        Whether dicts keep their form, the label in its place: a collate_fn of the user's knows it.
    """

    def __init__(self, dataset, rows, labels, *, whole=False):
        self.dataset, self.rows, self.labels, self.whole = dataset, rows, labels, whole

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        item = self.dataset[int(self.rows[i])]
        if isinstance(item, Mapping):
            label = next((k for k in LABELS if k in item), None)
            if self.whole and label is not None:
                return {**item, label: self.labels[i]}
            return {k: v for k, v in item.items() if k != label}, self.labels[i]
        return (item[0] if isinstance(item, (tuple, list)) else item), self.labels[i]


def loaded(X, dataset):
    """Another data set under the collate_fn of a loader; as it is where X is none."""
    if not isinstance(X, DataLoader):
        return dataset
    return DataLoader(dataset, batch_size=X.batch_size, collate_fn=X.collate_fn)


def subset_of(X, rows):
    """Some items of a data set, as one."""
    if is_slices(X):
        return X[rows]
    return Subset(opened(X, "X")[0], [int(i) for i in rows])


def opened(X, name):
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
    return X if isinstance(X, Dataset) else _Items(X), collate


class _Items(Dataset):
    """What has the two methods of a data set, as one of torch."""

    def __init__(self, X):
        self.X = X

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[int(i)]
