"""Curves of single samples over epochs, from log-probabilities as they come by: torch only."""

import torch


def losses(log_proba, y):
    """Cross-entropy of each sample."""
    return -log_proba.gather(1, y[:, None])[:, 0]


def error_norms(log_proba, y):
    """Euclidean norm of ``softmax(z) - e_y`` of each sample (EL2N)."""
    label = y[:, None]
    return (
        log_proba.exp()
        .scatter_add_(1, label, -torch.ones_like(label, dtype=torch.float32))
        .norm(dim=1)
    )


def margins(log_proba, y):
    """The label's logit minus the largest other one, of each sample."""
    label = y[:, None]
    own = log_proba.gather(1, label)[:, 0]
    return own - log_proba.scatter(1, label, -torch.inf).amax(1)


class Curves:
    """Several curves of the same samples, fed in large pieces: small ones cost as much.

    Attributes
    ----------
    by_name : dict of str to curve
    """

    PIECE = 2**20  # logits that are kept before they are looked at

    def __init__(self, by_name):
        self.by_name, self._kept, self._size = by_name, [], 0
        self.is_open = self._begun = False

    def begin_epoch(self):
        self._kept, self._size, self.is_open, self._begun = [], 0, True, False

    def add(self, positions, logits, y):
        """The logits of a batch, of samples at some positions."""
        self._kept.append((positions, logits, y))
        self._size += logits.numel()
        if self._size >= self.PIECE:
            self._flush()

    def end_epoch(self):
        self._flush()
        self.is_open = False
        for curve in self.by_name.values():
            curve.end_epoch()

    @torch.no_grad()
    def _flush(self):
        kept, self._kept, self._size = self._kept, [], 0
        device = kept[0][1].device if kept else "cpu"
        if not self._begun:
            self._begun = True
            for curve in self.by_name.values():
                curve.begin_epoch(device)
        if not kept:
            return
        whole = [torch.cat(part) for part in zip(*kept)]
        # a sample that comes twice must be looked at in turn
        pieces = [whole] if len(whole[0].unique()) == len(whole[0]) else kept
        for positions, logits, y in pieces:
            positions, log_proba = positions.to(device), torch.log_softmax(logits.float(), 1)
            # not of the log-probabilities: close logits are equal there
            is_right = (logits.argmax(1) == y) & ~log_proba[:, 0].isnan()
            for curve in self.by_name.values():
                curve.update(positions, log_proba, y, is_right)


class MeanCurve:
    """Mean of a measure over the visits of each epoch; nan in epochs without one."""

    def __init__(self, measure, n_samples):
        self.measure, self.n_samples, self.epochs = measure, n_samples, []

    def begin_epoch(self, device):
        self._sum, self._visits = torch.zeros(2, self.n_samples, dtype=torch.float32, device=device)

    def update(self, positions, log_proba, y, is_right):
        values = self.measure(log_proba, y)
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
        # copies, since an epoch that is interrupted does not count
        self._running = [t.to(device, copy=True) for t in (self._last, self.counts)]
        self._now = torch.full_like(self._running[0], -1)

    def update(self, positions, log_proba, y, is_right):
        last, counts = self._running
        right = is_right.to(torch.int8)
        forgotten = (last[positions] == 1) & (right == 0)
        # not index_add_: a sample that is in the batch twice was forgotten once
        counts[positions] = counts[positions] + forgotten
        last[positions] = right
        self._now[positions] = right

    def end_epoch(self):
        self.epochs.append(self._now.cpu())
        self._last, self.counts = (t.cpu() for t in self._running)
        del self._now, self._running
