"""Which rows of the data each training batch of a skorch fit holds, whatever shuffles them.

skorch tells its callbacks what is in a batch, not where it is from. The loader's batch sampler
knows: it is wrapped in one that remembers what it hands out. To get at the loader, the class that
makes it, ``iterator_train``, is stood in for from the beginning of a fit to its first epoch. No
random number is drawn.
"""

import weakref
from collections import deque

import numpy as np
from torch.utils.data import DataLoader, IterableDataset, Subset


def follow_batches(net, X):
    """The batches of the fit on X that is about to begin, as a `FollowedBatches`."""
    if not isinstance(net.iterator_train, _FollowedIterator):
        net.__dict__["iterator_train"] = _FollowedIterator(net.iterator_train)
    followed = FollowedBatches(X)
    net.iterator_train.followers.add(followed)
    return followed


class _FollowedIterator:
    """Stands in for ``iterator_train`` until the loaders of a fit were made.

    Should the fit fail before, it stays, and does what the original does.
    """

    def __init__(self, original):
        self.original, self.followers = original, weakref.WeakSet()

    def __call__(self, dataset, **kwargs):
        loader = self.original(dataset, **kwargs)
        for followed in self.followers:
            followed.attach(loader)
        return loader

    def __getstate__(self):
        return {"original": self.original}

    def __setstate__(self, state):
        self.__init__(state["original"])


class FollowedBatches:
    """Rows of the data in each batch, in the order in which batches are trained on."""

    def __init__(self, X=None):
        self._X, self._dataset, self._rows = X, None, None
        self._handed_out, self._samplers = deque(), []

    def attach(self, loader):
        """Follow a loader, one of those of which one will be trained on."""
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
        sampler = loader.batch_sampler
        if not isinstance(sampler, _RememberingSampler):
            # setattr is refused after __init__; workers that persist keep the sampler for good
            sampler = loader.__dict__["batch_sampler"] = _RememberingSampler(sampler)
        sampler.followers.add(self)
        self._samplers.append((weakref.ref(loader), sampler))
        self._dataset, self._rows = _whole(loader.dataset, self._X)

    def settle(self, net):
        """The loaders are made: give the net its ``iterator_train`` back."""
        if isinstance(net.iterator_train, _FollowedIterator):
            net.__dict__["iterator_train"] = net.iterator_train.original

    def end(self):
        """Nothing is followed any more: give the loaders their samplers back."""
        for loader, sampler in self._samplers:
            sampler.followers.discard(self)
            kept = loader()
            if kept is not None and not sampler.followers and not kept.persistent_workers:
                kept.__dict__["batch_sampler"] = sampler.inner
        self._samplers = []

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
        self._handed_out.append(rows)

    def next(self):
        """Rows of the batch that comes next."""
        if not self._handed_out:
            raise ValueError(
                "There are more training batches than the loader's batch sampler handed out, so "
                "their samples can't be told."
            )
        rows = np.asarray(self._handed_out.popleft())
        return rows if self._rows is None else self._rows[rows]

    def __getstate__(self):
        return {}  # a pickled net holds no data

    def __setstate__(self, state):
        self.__init__()


class _RememberingSampler:
    """A batch sampler that tells its followers what it hands out."""

    def __init__(self, inner):
        self.inner, self.followers = inner, weakref.WeakSet()

    def __iter__(self):
        for followed in self.followers:
            followed.begin_epoch()
        for rows in self.inner:
            rows = list(rows)
            for followed in self.followers:
                followed.hand_out(rows)
            yield rows

    def __len__(self):
        return len(self.inner)

    def __getattr__(self, name):
        if name.startswith("__") or name in ("inner", "followers"):
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __getstate__(self):
        return {"inner": self.inner}

    def __setstate__(self, state):
        self.__init__(state["inner"])


def _whole(dataset, X):
    """The data set below the subsets that a split made of it, and the rows left (None: all)."""
    rows = None
    while isinstance(dataset, Subset) and dataset is not X:
        indices = np.asarray(dataset.indices)
        rows = indices if rows is None else indices[rows]
        dataset = dataset.dataset
    return dataset, rows
