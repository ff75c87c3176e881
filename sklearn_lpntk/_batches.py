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
from skorch.dataset import get_len
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset


def follow_batches(net, X):
    """The batches of the fit on X that is about to begin, as a `FollowedBatches`."""
    if not isinstance(net.iterator_train, _FollowedIterator):
        net.__dict__["iterator_train"] = _FollowedIterator(net)
    followed = FollowedBatches(X)
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
            followed.attach(loader)
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
    """Rows of the data in each batch, in the order in which batches are trained on."""

    def __init__(self, X=None):
        self._X, self._dataset, self._rows = X, None, None
        self._handed_out, self._loader, self._sampler = deque(), None, None

    def attach(self, loader):
        """Follow a loader, and no other any more."""
        batched = isinstance(loader, DataLoader) and loader.batch_sampler is not None
        if not batched or isinstance(loader.dataset, IterableDataset):
            raise ValueError(
                "Samples are followed through the batch sampler of a DataLoader over a data set "
                f"with indices; this net trains on a {type(loader).__name__} over a "
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
        given = self._X is not None and not isinstance(self._X, Dataset)
        if given and get_len(self._X) != len(self._dataset):
            raise ValueError(
                f"The net trains on a data set of {len(self._dataset)} samples that is no subset "
                f"of the {get_len(self._X)} of X, so which row of X a sample is can't be told. "
                "Let train_split return torch.utils.data.Subset of the data set that it gets."
            )

    def settle(self, net):
        """The loaders are made: the last one is trained on."""
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
        """A loader begins to hand out batches."""
        self._handed_out.clear()

    def hand_out(self, rows):
        """A loader hands out a batch."""
        self._handed_out.append(np.array(rows.tolist() if hasattr(rows, "tolist") else list(rows)))

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

    def __getstate__(self):
        return {}  # a pickled net holds no data

    def __setstate__(self, state):
        self.__init__()


class _RememberingSampler:
    """A batch sampler that tells its followers what it hands out, and is the inner one else."""

    def __init__(self, inner):
        self.__dict__.update(inner=inner, followers=weakref.WeakSet())

    def __iter__(self):
        for followed in self.followers:
            followed.begin_epoch()
        for rows in self.inner:
            for followed in self.followers:
                followed.hand_out(rows)
            yield rows

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
        indices = np.asarray(dataset.indices)
        rows = indices if rows is None else indices[rows]
        dataset = dataset.dataset
    return dataset, rows
