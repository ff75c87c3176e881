"""Which rows of the data each training batch of a skorch fit holds, whatever shuffles them.

skorch tells its callbacks what is in a batch, not where it is from. The loader's batch sampler
knows: it is wrapped, once a fit, in one that remembers what it hands out. No random number is
drawn, and nothing of the net is changed after the loader is made.
"""

from collections import deque

import numpy as np
from torch.utils.data import DataLoader, IterableDataset, Subset


def follow_batches(net):
    """The batches of the fit that is about to begin, as a `FollowedBatches`."""
    followed = FollowedBatches()
    net.__dict__["get_iterator"] = _FirstLoader(net, net.get_iterator, followed)
    return followed


class _FirstLoader:
    """Stands in for ``net.get_iterator`` until the training loader was made."""

    def __init__(self, net, previous, followed):
        self.net, self.previous, self.followed = net, previous, followed

    def __call__(self, dataset, training=False):
        if not training:
            return self.previous(dataset, training=False)
        if isinstance(self.previous, _FirstLoader):
            self.net.__dict__["get_iterator"] = self.previous  # another callback follows, too
        else:
            del self.net.__dict__["get_iterator"]
        loader = self.previous(dataset, training=True)
        self.followed.attach(loader)
        return loader


class FollowedBatches:
    """Rows of the whole data set in each batch, in the order in which batches are trained on."""

    def __init__(self):
        self._dataset, self._rows, self._sampler = None, None, None

    def attach(self, loader):
        """Wrap the batch sampler of a loader."""
        batched = isinstance(loader, DataLoader) and loader.batch_sampler is not None
        if not batched or isinstance(loader.dataset, IterableDataset):
            raise ValueError(
                "Samples are followed through the batch sampler of a DataLoader over a data set "
                f"with indices; this net trains on a {type(loader).__name__} over a "
                f"{type(getattr(loader, 'dataset', None)).__name__}."
            )
        self._sampler = _RememberingSampler(loader.batch_sampler)
        loader.__dict__["batch_sampler"] = self._sampler  # setattr is refused after __init__
        self._dataset, self._rows = _root(loader.dataset)

    @property
    def dataset(self):
        """The whole data set, below the subsets that a split made of it."""
        if self._dataset is None:
            raise ValueError(
                "The net made no training loader by its get_iterator, so its samples can't be "
                "followed; train it by skorch's own fit_loop."
            )
        return self._dataset

    @property
    def n_samples(self):
        """Length of the whole data set."""
        return len(self.dataset)

    def next(self):
        """Rows of the batch that comes next."""
        rows = np.asarray(self._sampler.handed_out.popleft())
        return rows if self._rows is None else self._rows[rows]

    def __getstate__(self):
        return dict.fromkeys(vars(self))  # a pickled net holds no data


class _RememberingSampler:
    """A batch sampler that remembers what it handed out and was not asked for yet."""

    def __init__(self, inner):
        self.inner, self.handed_out = inner, deque()

    def __iter__(self):
        self.handed_out.clear()
        for rows in self.inner:
            rows = list(rows)
            self.handed_out.append(rows)
            yield rows

    def __len__(self):
        return len(self.inner)


def _root(dataset):
    """The data set below all subsets, and the rows that are left of it (None for all)."""
    rows = None
    while isinstance(dataset, Subset):
        indices = np.asarray(dataset.indices)
        rows = indices if rows is None else indices[rows]
        dataset = dataset.dataset
    return dataset, rows
