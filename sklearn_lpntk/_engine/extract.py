"""From a network and data to factors, batch by batch, under the self-check."""

import warnings

import torch

from ..exceptions import AutogradRuleWarning, ProbabilityOutputWarning
from .check import SelfCheck
from .features import Collected, Features
from .inputs import n_rows, require_real_numbers, to_batch
from .parameters import refuse_network, require_finite_state, select_parameters
from .session import borrowed
from .sources import Recomputed
from .trace import Plan, PlanChanged, Tracer


class Extractor:
    """Computes the factors of labelled samples under one network, cotangent and plan."""

    def __init__(self, module, cotangent, *, parameters=None, batch_size=256, plan=None):
        refuse_network(module)
        self.module, self.cotangent, self.batch_size = module, cotangent, batch_size
        self.plan = Plan() if plan is None else plan
        names = select_parameters(module, parameters)
        self.tracer = Tracer(module, cotangent, names, self.plan)
        self._probabilities = False  # as far as is known

    @property
    def n_parameters(self):
        """Dimension d of the features."""
        return sum(p.numel() for p in self.tracer.parameters.values())

    def __sizeof__(self):
        own = [*self.module.parameters(), *self.module.buffers()]
        return object.__sizeof__(self) + sum(t.numel() * t.element_size() for t in own)

    def __call__(self, X, y=None, *, sketch=None, limit=None):
        """Features of the samples.

        Parameters
        ----------
        sketch : Sketch, optional
            Sketches batch by batch: no factor outlives its batch.
        limit : int, optional
            Bytes that the factors may take. Where they would take more, every sample is
            checked all the same, and the features are computed anew at every use.

        Returns
        -------
        features : Features or Recomputed
        """
        while True:
            try:
                found = self._all(X, y, sketch, limit)
                break
            except PlanChanged:
                continue
        self.warn()
        return found

    def _all(self, X, y, sketch, limit):
        batches, n = self.batches(X, y, sketch), n_rows(X)
        collected = Collected(n)
        for features in batches:
            if limit is not None and features.sample_bytes * n > limit:
                break
            collected.add(features)
        else:
            return collected.features()
        for _ in batches:
            pass
        y = torch.zeros(n, dtype=torch.int64) if y is None else torch.as_tensor(y)
        return Recomputed(self, X, y, sketch, features)

    def batches(self, X, y=None, sketch=None, *, checked=False):
        """The features batch by batch, under the self-check unless they were checked before.

        Raises
        ------
        PlanChanged
            If the check refutes a rule: what was computed before does not fit.
        """
        require_real_numbers(X)
        n = n_rows(X)
        if n == 0:
            raise ValueError("X has no samples.")
        y = torch.zeros(n, dtype=torch.int64) if y is None else torch.as_tensor(y)
        with borrowed(self.module):
            require_finite_state(self.module)
            self.tracer.prepare()
            check = None if checked else SelfCheck(self.tracer)
            for start in range(0, n, self.batch_size):
                rows = slice(start, min(start + self.batch_size, n))
                x = to_batch(X, rows, self.tracer.dtype, self.tracer.device)
                features = self._batch(x, y[rows].to(self.tracer.device), check, start == 0)
                yield features if sketch is None else sketch(features)

    def _batch(self, x, y, check, first):
        if check is not None and first:
            check.before(x)
        trace = self.tracer(x, y)
        if check is not None:
            check.batch(x, y, trace)
            if first:
                self._probabilities = True
            self._probabilities = self._probabilities and _look_like_probabilities(trace.logits)
        return Features(trace.factors, trace.v)

    def warn(self):
        """Warn of what the last run showed about the network."""
        if self._probabilities:
            warnings.warn(
                "Every row of the network's output is non-negative and sums to 1: it looks like "
                "probabilities, and the kernel is defined on logits. Remove the softmax and "
                "train with CrossEntropyLoss.",
                ProbabilityOutputWarning,
                stacklevel=4,
            )
        slow = [name for name in self.tracer.others if name in self.plan.slow]
        if slow and not self.plan.warned:
            self.plan.warned = True
            warnings.warn(
                f"No layer rule covers the parameters {slow}: they take the autograd rule, "
                "which is exact but slower.",
                AutogradRuleWarning,
                stacklevel=4,
            )


def _look_like_probabilities(logits):
    if logits.device.type == "meta" or logits.shape[1] == 1:
        return False
    return bool((logits >= 0).all() and ((logits.sum(1) - 1).abs() < 1e-4).all())
