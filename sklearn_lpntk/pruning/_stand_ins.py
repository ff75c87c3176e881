"""Who stands in for a pruned sample: the most similar one of its class that is kept."""

from dataclasses import dataclass

import numpy as np
from sklearn.utils import gen_batches

from .._runtime.progress import report
from ._similarity import CosineRows

BLOCK = 256  # rows of the kernel at a time


@dataclass
class StandIns:
    """For each sample the candidates at any cut of the order, in CSR form.

    Of the samples of its class that go later only those can ever stand in that are more similar
    than all that go later still: about ``log n`` of ``n``.

    Attributes
    ----------
    starts : ndarray of shape (n_samples + 1,)
        Where the candidates of each sample begin.
    rows, cosines : ndarray of shape (n_candidates,)
        They and their cosines, of each sample the last of the order first.
    """

    starts: np.ndarray
    rows: np.ndarray
    cosines: np.ndarray

    def among(self, kept):
        """The stand-in of each pruned sample and its cosine; -1 and nan for the others."""
        n = len(kept)
        owners = np.repeat(np.arange(n), np.diff(self.starts))
        valid = np.flatnonzero(kept[self.rows] & ~kept[owners])
        found, cosines = np.full(n, -1), np.full(n, np.nan)
        # the last valid candidate of each is the most similar: later assignments win
        found[owners[valid]], cosines[owners[valid]] = self.rows[valid], self.cosines[valid]
        return found, cosines


def stand_ins(operator, columns, prune_order):
    """Candidates of every sample under the cosine of a kernel; ties to the last to go."""
    found, done = [], 0
    for column in np.unique(columns):
        members = prune_order[columns[prune_order] == column]
        rows = CosineRows(operator.restricted(members))
        for at in gen_batches(len(members), BLOCK):
            places = np.arange(len(members))[at]
            found.append(_records(rows.block(places), members[places], members, places))
            done += len(places)
            report(done, len(columns))
    owners, rows, cosines = map(np.concatenate, zip(*found))
    order = np.argsort(owners, kind="stable")
    counts = np.bincount(owners, minlength=len(columns))
    starts = np.concatenate([[0], np.cumsum(counts)])
    return StandIns(starts, rows[order].astype(np.int32), cosines[order].astype(np.float32))


def _records(cosines, own, members, ranks):
    """(owner, row, cosine) of all that exceed those later in the order, the last one first."""
    later = np.where(np.arange(len(members)) > ranks[:, None], cosines, -np.inf)[:, ::-1]
    before = np.maximum.accumulate(later, axis=1)
    is_record = later > -np.inf
    is_record[:, 1:] &= later[:, 1:] > before[:, :-1]
    i, j = np.nonzero(is_record)
    return own[i], members[::-1][j], later[i, j]
