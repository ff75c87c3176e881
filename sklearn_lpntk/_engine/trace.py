"""One batch through the network: its calls, turned into blocks by their rules."""

from dataclasses import dataclass

import torch

from .autograd import explained, is_looped_faster, per_sample_gradients
from .blocks import NoRule, blocks_of
from .capture import Recorder, hidden_uses
from .factors import Dense
from .inputs import checked_forward, n_rows, parts_of
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
    known: bool  # whether the rows of every call are known to be of their samples
    plain: bool  # whether only common operations tell so
    path: tuple  # operations, and what was recorded of them
    recorder: Recorder

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
            for t in parts_of(x).values():
                recorder.set_label(t, Samples(0 if recorder.n > 1 else -1))

        return checked_forward(
            self.module, x, self.dtype, any_shape=self.objective.any_shape, prepare=label
        )

    def __call__(self, x, y, *, rooms=None):
        """Trace a batch; ``rooms`` has arrays by key that written-out gradients may go to."""
        n = n_rows(x)
        with self.recorder(n) as recorder:
            logits = self.forward(recorder, x)
            recorder.recording = False
            known = recorder.label_of(logits) == Samples(0) or n == 1
            plain = known and recorder.plain
        scalars = self.objective(logits, y)
        self._require_seen(recorder, scalars)
        with explained():
            self._backward(recorder, scalars)
        calls = [c for c in recorder.calls if any(g is not None for g in c.gradients)]
        blocks = self._blocks(calls, recorder, rooms or {})
        slow = self._slow(x, y, logits, scalars)
        path = (*recorder.path, *(call.use.signature for call in calls))
        return Trace(blocks, slow, calls, logits.detach(), scalars, known, plain, path, recorder)

    def _require_seen(self, recorder, scalars):
        if recorder.views_were_written_to and not self.plan.clone:
            raise Refuted(self.plan.but(clone=True))
        hidden = hidden_uses(scalars, recorder.calls, self.covered)
        hidden = hidden.union(*(call.names for call in recorder.calls if call.is_stale))
        if recorder.opaque or hidden:
            raise Refuted(self.plan.but(autograd=self.plan.autograd | recorder.opaque | hidden))

    def _backward(self, recorder, scalars):
        """Fill the gradients of the calls; no gradient of a weight is formed."""
        calls = recorder.calls
        for r in range(scalars.shape[1] if calls and scalars.requires_grad else 0):
            edges, ones = [call.edge for call in calls], torch.ones_like(scalars[:, r])
            gradients = recorder.gradients(scalars[:, r], edges, ones)
            for call, gradient in zip(calls, gradients, strict=True):
                call.gradients.append(gradient)

    def _blocks(self, calls, recorder, rooms):
        try:
            return blocks_of(calls, self.parameters, recorder, rooms, self.plan.apart)
        except NoRule as error:
            names = self.plan.autograd | error.names
            raise Refuted(self.plan.but(autograd=names)) from error

    def _slow(self, x, y, logits, scalars):
        names = self.plan.autograd & self.parameters.keys()
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
