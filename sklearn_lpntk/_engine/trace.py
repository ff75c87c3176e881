"""One batch through the network: its calls, turned into blocks by their rules."""

from dataclasses import dataclass

import torch

from .autograd import explained, is_looped_faster, per_sample_gradients
from .blocks import NoRule, blocks_of
from .capture import Recorder
from .factors import Dense
from .inputs import checked_forward, n_rows
from .plan import Refuted
from .samples import Samples


@dataclass
class Trace:
    """One batch: its factors by key, and what the check needs of the pass."""

    blocks: list
    slow: dict  # factors of parameters that took the autograd rule
    calls: list
    logits: torch.Tensor
    scalars: torch.Tensor
    joint: dict | None  # gradients of the sum of all scalars, by parameter
    proven: bool  # whether the rows of every call are known to be of their samples

    @property
    def factors(self):
        """Factors by key."""
        return {block.key: block.factor for block in self.blocks} | self.slow


class Tracer:
    """Traces batches under one network, objective, parameter selection and plan."""

    def __init__(self, module, objective, names, plan):
        self.module, self.objective, self.plan = module, objective, plan
        parameters = dict(module.named_parameters())
        self.parameters = {name: parameters[name] for name in names}
        self.covered = {k: p for k, p in self.parameters.items() if k not in plan.autograd}
        first = next(p for p in module.parameters() if p.is_floating_point())
        self.dtype, self.device = first.dtype, first.device

    def recorder(self, n):
        """A recorder of a batch of n samples, whose axis is the first of every input."""
        return Recorder(self.module, self.covered, n, self.plan)

    def forward(self, recorder, x):
        """Logits under a recorder."""

        def label(x):
            for t in x.values() if isinstance(x, dict) else [x]:
                recorder.set_label(t, Samples(0 if recorder.n > 1 else -1))

        return checked_forward(
            self.module, x, self.dtype, any_shape=self.objective.any_shape, prepare=label
        )

    def __call__(self, x, y, *, joint=False):
        """Trace a batch; ``joint`` asks for the gradients of the parameters in the same pass."""
        n = n_rows(x)
        with self.recorder(n) as recorder:
            logits = self.forward(recorder, x)
            recorder.recording = False
            proven = recorder.label_of(logits) == Samples(0) or n == 1
            self._require_seen(recorder)
            scalars = self.objective(logits, y)
            with explained():
                found = self._backward(recorder.calls, scalars, joint and scalars.shape[1] == 1)
            calls = [c for c in recorder.calls if any(g is not None for g in c.gradients)]
            blocks = self._blocks(calls, n)
        slow = self._slow(x, y, logits, scalars, found)
        return Trace(blocks, slow, calls, logits.detach(), scalars, found, proven)

    def _require_seen(self, recorder):
        if recorder.opaque:
            raise Refuted(self.plan.but(autograd=self.plan.autograd | recorder.opaque))
        if recorder.views_were_written_to and not self.plan.clone:
            raise Refuted(self.plan.but(clone=True))

    def _backward(self, calls, scalars, joint):
        """Fill the calls' gradients; those of the parameters where asked."""
        if not scalars.requires_grad:
            return None
        parameters = list(self.parameters.values()) if joint else []
        for r in range(scalars.shape[1]):
            wanted = [call.edge for call in calls] + (parameters if r == 0 else [])
            if not wanted:
                return None
            ones = torch.ones_like(scalars[:, r])
            gradients = torch.autograd.grad(
                scalars[:, r], wanted, ones, retain_graph=True, allow_unused=True
            )
            for call, gradient in zip(calls, gradients, strict=False):
                call.gradients.append(gradient)
            if r == 0:
                found = gradients[len(calls) :]
        return dict(zip(self.parameters, found)) if joint else None

    def _blocks(self, calls, n):
        try:
            return blocks_of(calls, self.parameters, n, self.plan.apart)
        except NoRule as error:
            names = self.plan.autograd | error.names
            raise Refuted(self.plan.but(autograd=names)) from error

    def _slow(self, x, y, logits, scalars, joint):
        names = self.plan.autograd & self.parameters.keys()
        if joint is not None:
            names = {name for name in names if joint[name] is not None}
        if not names or not scalars.requires_grad:
            return {}
        v = self._cotangents(logits, y)
        if self.plan.loop is None:
            raise Refuted(self.plan.but(loop=is_looped_faster(self.module, names, x, v)))
        gradients = per_sample_gradients(self.module, names, x, v, loop=self.plan.loop)
        if gradients is None:
            raise Refuted(self.plan.but(loop=True))
        R = scalars.shape[1]
        return {name: Dense(phi.detach().flatten(0, 1), R) for name, phi in gradients.items()}

    def _cotangents(self, logits, y):
        """Gradients of the scalars with respect to the logits: (n, R, *logits)."""
        leaf = logits.detach().requires_grad_()
        scalars = self.objective(leaf, y)
        rows = [
            torch.autograd.grad(scalars[:, r].sum(), leaf, retain_graph=True)[0]
            for r in range(scalars.shape[1])
        ]
        return torch.stack(rows, 1)
