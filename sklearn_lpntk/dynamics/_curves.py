"""Curves of single samples over epochs, from logits as they come by: torch only."""

import torch
from torch.nn.functional import cross_entropy, one_hot


def losses(logits, y):
    """Cross-entropy of each sample."""
    return cross_entropy(logits, y, reduction="none")


def error_norms(logits, y):
    """Euclidean norm of ``softmax(z) - e_y`` of each sample (EL2N)."""
    return (torch.softmax(logits, 1) - one_hot(y, logits.shape[1])).norm(dim=1)


class MeanCurve:
    """Mean of a measure over the visits of each epoch; nan in epochs without one."""

    def __init__(self, measure, n_samples):
        self.measure, self.n_samples, self.epochs = measure, n_samples, []

    def begin_epoch(self, device):
        self._sum, self._visits = torch.zeros(2, self.n_samples, dtype=torch.float32, device=device)

    def update(self, positions, logits, y):
        values = self.measure(logits, y)
        self._sum.index_add_(0, positions, values)
        self._visits.index_add_(0, positions, torch.ones_like(values))

    def end_epoch(self):
        self.epochs.append((self._sum / self._visits).cpu())
        del self._sum, self._visits


class LearnedCurve:
    """Whether each sample was right at its last visit of an epoch, and how often that was lost.

    An event is counted from visit to visit, also where an epoch has several of a sample, or none.
    """

    def __init__(self, n_samples):
        self.epochs = []  # 1 right, 0 wrong, -1 not visited
        self._last = torch.full((n_samples,), -1, dtype=torch.int8)
        self.counts = torch.zeros(n_samples, dtype=torch.int64)

    def begin_epoch(self, device):
        self._last, self.counts = self._last.to(device), self.counts.to(device)
        self._now = torch.full_like(self._last, -1)

    def update(self, positions, logits, y):
        right = (logits.argmax(1) == y).to(torch.int8)
        forgotten = (self._last[positions] == 1) & (right == 0)
        # not index_add_: a sample that is in the batch twice was forgotten once
        self.counts[positions] = self.counts[positions] + forgotten
        self._last[positions] = right
        self._now[positions] = right

    def end_epoch(self):
        self.epochs.append(self._now.cpu())
        self._last, self.counts = self._last.cpu(), self.counts.cpu()
        del self._now
