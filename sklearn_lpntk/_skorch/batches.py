"""Which rows of the data each training batch of a skorch fit holds, whatever shuffles them.

skorch tells its callbacks what is in a batch, not where it is from. The loader's batch sampler
knows: it is wrapped in one that remembers what it hands out. To get at the loader, the class that
makes it, ``iterator_train``, is stood in for from the beginning of a fit to its first epoch. No
random number is drawn.
"""

import copy
import weakref
from collections import deque

import numpy as np
import torch
from skorch.dataset import Dataset as ArrayDataset
from skorch.dataset import get_len
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset


def follow_batches(net, X):
    """The batches of the fit on X that is about to begin, as a `FollowedBatches`."""
    if not isinstance(net.iterator_train, _FollowedIterator):
        net.__dict__["iterator_train"] = _FollowedIterator(net)
    followed = FollowedBatches(X, has_rows_of_X=net.dataset is ArrayDataset)
    net.iterator_train.followers.add(followed)
    return followed


class _FollowedIterator:
    """Stands in for ``iterator_train`` until the loaders of a fit were made.

    Should the fit fail before, it does what the original does; a copy or a pickle is the original.
    """

    def __init__(self, net):
        self.original, self.followers = net.iterator_train, weakref.WeakSet()
        self._net = weakref.ref(net)

    def __call__(self, dataset, **kwargs):
        loader = self.original(dataset, **kwargs)
        for followed in self.followers:
            followed.try_to_attach(loader)
        if not self.followers:  # left over from a fit that failed
            self.leave()
        return loader

    def leave(self):
        """Give the net its ``iterator_train`` back."""
        net = self._net()
        if net is not None and net.iterator_train is self:
            net.__dict__["iterator_train"] = self.original

    def __deepcopy__(self, memo):
        return copy.deepcopy(self.original, memo)

    def __reduce__(self):
        return _itself, (self.original,)


def _itself(original):
    return original


class FollowedBatches:
    """Rows of the data in each batch, in the order in which batches are trained on.

    Parameters
    ----------
    X : array-like or Dataset
        What the net was given.
    has_rows_of_X : bool
        Whether the data set that is made of an array X has a sample for each of its rows.
    """

    def __init__(self, X=None, *, has_rows_of_X=True):
        self._X, self._dataset, self._rows = X, None, None
        self._has_rows_of_X = has_rows_of_X
        self._handed_out, self._loader, self._sampler = deque(), None, None
        self._iteration, self._is_exhausted = None, False
        self._problem = None

    def try_to_attach(self, loader):
        """Follow a loader that may not be the last one that is made before the training."""
        try:
            self._problem = None
            self.attach(loader)
        except ValueError as error:
            self._problem = error

    def attach(self, loader):
        """Follow a loader, and no other any more."""
        batched = isinstance(loader, DataLoader) and loader.batch_sampler is not None
        if not batched or isinstance(loader.dataset, IterableDataset):
            raise ValueError(
                "Samples are followed through the batch sampler of a DataLoader over a data set "
                f"with indices; here it is a {type(loader).__name__} over a "
                f"{type(getattr(loader, 'dataset', None)).__name__}."
            )
        if not getattr(loader, "in_order", True) and loader.num_workers:
            raise ValueError(
                "With in_order=False the loader's workers hand out batches in any order, and "
                "which samples are in one can't be told; set iterator_train__in_order=True."
            )
        self.end()
        sampler = loader.batch_sampler
        if not isinstance(sampler, _RememberingSampler):
            # setattr is refused after __init__; workers that persist keep the sampler for good
            sampler = loader.__dict__["batch_sampler"] = _RememberingSampler(sampler)
        sampler.followers.add(self)
        self._loader, self._sampler = weakref.ref(loader), sampler
        self._dataset, self._rows = _whole(loader.dataset, self._X)
        self._require_rows_of_X()

    def _require_rows_of_X(self):
        X, n = self._X, len(self._dataset)
        if X is None or not (self._has_rows_of_X or isinstance(X, Dataset)):
            return
        n_given = len(X) if isinstance(X, Dataset) else get_len(X)
        if n_given != n:
            raise ValueError(
                f"The loader is over a {type(self._dataset).__name__} of {n} samples that is no "
                f"subset of the {n_given} of X, so which row of X a sample is can't be told. Let "
                "train_split return torch.utils.data.Subset of the data set that it gets."
            )

    def settle(self, net):
        """The loaders are made: the last one is trained on."""
        self.leave(net)
        if self._problem is not None:
            raise self._problem

    @staticmethod
    def leave(net):
        """No loader is waited for any more."""
        if isinstance(net.iterator_train, _FollowedIterator):
            net.iterator_train.leave()

    def end(self):
        """Nothing is followed any more: give the loader its sampler back."""
        loader = None if self._loader is None else self._loader()
        if self._sampler is not None:
            self._sampler.followers.discard(self)
        if loader is not None and not self._sampler.followers and not loader.persistent_workers:
            loader.__dict__["batch_sampler"] = self._sampler.inner
        self._loader, self._sampler = None, None

    @property
    def dataset(self):
        """The whole data set, as the net was given it."""
        if self._dataset is None:
            raise ValueError(
                "The net made no training loader by its iterator_train, so its samples can't be "
                "followed; let skorch's own get_iterator make it."
            )
        return self._dataset

    @property
    def n_samples(self):
        """Length of the whole data set."""
        return len(self.dataset)

    def begin_epoch(self):
        """The next iteration over the loader is the one that is trained on."""
        self._handed_out.clear()
        self._iteration = None

    def begin(self, iteration):
        """An iteration over the loader begins: trained on, unless another one still is."""
        if self._iteration is None or (self._is_exhausted and not self._handed_out):
            self._handed_out.clear()
            self._iteration, self._is_exhausted = iteration, False

    def hand_out(self, iteration, rows):
        """An iteration hands out a batch."""
        if iteration is not self._iteration:
            return
        rows = np.array(rows.tolist() if hasattr(rows, "tolist") else list(rows))
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise ValueError(
                "Samples are followed through the batch sampler, which must hand out lists of "
                f"rows; got {rows.tolist()!r:.80}."
            )
        self._handed_out.append(rows.astype(np.int64))

    def exhaust(self, iteration):
        """An iteration is at its end."""
        if iteration is self._iteration:
            self._is_exhausted = True

    def next(self):
        """Rows of the batch that comes next."""
        if not self._handed_out:
            raise ValueError(
                "There are more training batches than the loader's batch sampler handed out, so "
                "their samples can't be told. (A loader that begins to iterate when it is made, or "
                "whose workers outlived an earlier fit, can't be followed.)"
            )
        rows = self._handed_out.popleft()
        return rows if self._rows is None else self._rows[rows]

    def check(self, rows, y):
        """Raise where the labels of a batch show that it holds other rows, or in another order."""
        labels = _labels(self._dataset)
        if labels is None or np.ndim(labels) != 1 or np.shape(y) != rows.shape:
            return
        pairs = {*zip(labels[rows].tolist(), y.tolist())}
        if len(pairs) > len({label for label, _ in pairs}):
            raise ValueError(
                "A training batch does not hold the samples that the loader's batch sampler handed "
                "out for it, in that order. A collate_fn must keep the order (for sequences, "
                "pack_padded_sequence(enforce_sorted=False)), and a loader may not skip batches."
            )

    def __getstate__(self):
        return {}  # a pickled net holds no data

    def __setstate__(self, state):
        self.__init__()


class _RememberingSampler:
    """A batch sampler that tells its followers what it hands out, and is the inner one else."""

    def __init__(self, inner):
        self.__dict__.update(inner=inner, followers=weakref.WeakSet())

    def __iter__(self):
        iteration = object()
        for followed in self.followers:
            followed.begin(iteration)
        for rows in self.inner:
            for followed in self.followers:
                followed.hand_out(iteration, rows)
            yield rows
        for followed in self.followers:
            followed.exhaust(iteration)

    def __len__(self):
        return len(self.inner)

    def __getattr__(self, name):
        if name.startswith("__") or name in ("inner", "followers"):
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __setattr__(self, name, value):
        setattr(self.inner, name, value)

    def __reduce__(self):
        return _RememberingSampler, (self.inner,)


def _whole(dataset, X):
    """The data set below the subsets that a split made of it, and the rows left (None: all)."""
    rows = None
    while isinstance(dataset, Subset) and dataset is not X:
        indices = np.asarray(dataset.indices).astype(np.int64)
        rows = indices if rows is None else indices[rows]
        dataset = dataset.dataset
    return dataset, rows


def _labels(dataset):
    """The labels that a data set holds as an array and hands out as they are; None if unknown."""
    if type(dataset) is TensorDataset and len(dataset.tensors) == 2:
        return dataset.tensors[1]
    if type(dataset) is ArrayDataset and isinstance(dataset.y, np.ndarray | torch.Tensor):
        return dataset.y
    return None
