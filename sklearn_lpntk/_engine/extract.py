"""From a network and data to factors, batch by batch, under the self-check."""

import warnings

import torch

from ..exceptions import AutogradRuleWarning, ProbabilityOutputWarning
from .check import SelfCheck
from .features import Features
from .inputs import n_rows, require_real_numbers, to_batch
from .parameters import refuse_network, require_finite_state, select_parameters
from .session import borrowed
from .trace import Plan, PlanChanged, Tracer


class Extractor:
    """Computes the factors of labelled samples under one network, cotangent and plan."""

    def __init__(self, module, cotangent, *, parameters=None, batch_size=256, plan=None):
        refuse_network(module)
        self.module, self.cotangent, self.batch_size = module, cotangent, batch_size
        self.plan = Plan() if plan is None else plan
        names = select_parameters(module, parameters)
        self.tracer = Tracer(module, cotangent, names, self.plan)

    @property
    def n_parameters(self):
        """Dimension d of the features."""
        return sum(p.numel() for p in self.tracer.parameters.values())

    def __call__(self, X, y=None, *, sketch=None):
        """Features of the samples.

        ``sketch=(n_components, seed)`` sketches batch by batch: no factor outlives its batch.
        """
        require_real_numbers(X)
        n = n_rows(X)
        if n == 0:
            raise ValueError("X has no samples.")
        y = torch.zeros(n, dtype=torch.int64) if y is None else torch.as_tensor(y)
        with borrowed(self.module):
            require_finite_state(self.module)
            while True:
                try:
                    batches = list(self._batches(X, y, n, sketch))
                    break
                except PlanChanged:
                    continue
        self._warn()
        return Features.cat(batches)

    def _batches(self, X, y, n, sketch):
        self.tracer.prepare()
        check, self._probabilities = SelfCheck(self.tracer), True
        for start in range(0, n, self.batch_size):
            rows = slice(start, min(start + self.batch_size, n))
            x = to_batch(X, rows, self.tracer.dtype, self.tracer.device)
            labels = y[rows].to(self.tracer.device)
            if start == 0:
                check.before(x)
            trace = self.tracer(x, labels)
            check.batch(x, labels, trace)
            self._probabilities = self._probabilities and _look_like_probabilities(trace.logits)
            features = Features(trace.factors, trace.v)
            yield features if sketch is None else features.sketch(*sketch)

    def _warn(self):
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
