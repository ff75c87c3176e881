"""Answers that are watched while a model is trained."""

import numpy as np
import torch

from ._batches import IGNORED, as_batch, as_rows, labelled
from ._causal import Causal
from ._objectives import largest_log_proba

# in the contexts of some answers: tokens that were likeliest at first, and those that are by now
ARGMAX, LIKELIEST = "argmax", "likeliest"


class Probes:
    """Answers with names, in one batch.

    Attributes
    ----------
    names : list of str
        Of each sequence.
    batch : dict of tensors
    """

    def __init__(self, probes):
        given = {"probes": probes} if _is_batch(probes) else probes
        if not hasattr(given, "items") or not len(given):
            raise TypeError(
                "probes must be a batch, or a dict of names to batches; got "
                f"{type(probes).__name__}."
            )
        found = {
            name: as_rows(as_batch(batch, f"probes[{name!r}]")) for name, batch in given.items()
        }
        for name, rows in found.items():
            if any((row["labels"] == IGNORED).all() for row in rows):
                raise ValueError(f"probes[{name!r}] has an answer without a labelled token.")
        self._set([(name, row) for name, rows in found.items() for row in rows])

    def _set(self, pairs):
        self.names = [name for name, _ in pairs]
        self.batch = as_batch([row for _, row in pairs], "probes")

    @property
    def lengths(self):
        """Number of labelled tokens of each sequence."""
        return labelled(self.batch).sum(1).numpy()

    def log_proba(self, module):
        """Summed log-probabilities under a model: (n,)."""
        with Causal(module, {"probes": self.batch}) as causal:
            return _sums(causal.log_proba(self.batch))

    def record(self, module):
        """The same by name; beside tokens that are fixed, those that are likeliest by now."""
        with Causal(module, {"probes": self.batch}) as causal:
            found = self.by_name(_sums(causal.log_proba(self.batch)))
            if ARGMAX in found and LIKELIEST not in found:
                own = as_batch(self._rows(ARGMAX))
                found[LIKELIEST] = _sums(causal.evaluated(largest_log_proba, own))
        return found

    def by_name(self, values):
        """Values of the sequences, as a dict of name to ndarray."""
        names = np.array(self.names)
        return {name: values[names == name] for name in dict.fromkeys(self.names)}

    def with_argmax(self, module, name):
        """These, and those of a name with the likeliest tokens in place of theirs."""
        own = as_batch(self._rows(name))
        with Causal(module, {"probes": own}) as causal:
            likeliest = causal.likeliest(own).cpu()
        own["labels"] = torch.where(labelled(own), likeliest, own["labels"])
        probes = object.__new__(Probes)
        pairs = zip(self.names, as_rows(self.batch))
        probes._set([*pairs, *((ARGMAX, row) for row in as_rows(own))])
        return probes

    def _rows(self, name):
        return [row for other, row in zip(self.names, as_rows(self.batch)) if other == name]


def _sums(values):
    return values.double().sum(1).cpu().numpy()


def _is_batch(probes):
    if isinstance(probes, (list, tuple)):
        return True
    return hasattr(probes, "keys") and {"input_ids", "prompt_ids"} & set(probes.keys())
