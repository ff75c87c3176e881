"""From a network and data to factors, batch by batch, under the self-check."""

import warnings
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from .._runtime.progress import report
from ..exceptions import AutogradRuleWarning
from .blocks import structure_of
from .check import LOOKED_AT, SelfCheck
from .cotangents import look_like_probabilities, warn_of_probabilities
from .features import Collected, Features, Spec
from .inputs import n_rows, require_real_numbers, to_batch
from .objectives import find_objective
from .parameters import accepted, require_finite_state, select_parameters
from .plan import Plan, Refuted, require_alike, settle
from .session import borrowed
from .sources import Recomputed
from .trace import Tracer

BATCH_BYTES = 2**26  # what a batch makes on its way: it stays in the allocator
MOST_ROWS = 256
PROVED = 16  # samples in the first batch, by which numbers prove the rules


@dataclass
class Findings:
    """What runs showed about the network, to be warned of once.

    ``probabilities`` says whether all outputs look like some, None where there were none;
    ``paths`` are those on which the rules were proved; ``n_scalars`` is how many a sample has.
    """

    probabilities: bool | None = None
    slow: set = field(default_factory=set)
    paths: set = field(default_factory=set)
    n_scalars: int | None = None
    structure: dict = field(default_factory=dict)


class Extractor:
    """Computes the factors of labelled samples under one network and objective.

    Attributes
    ----------
    plan : Plan
        That of the last run.
    batch_size : int or "auto"
        Samples in one forward pass; ``"auto"`` bounds the memory of a batch.
    """

    def __init__(self, module, objective, *, parameters=None, batch_size="auto", plan=None):
        self.module, self.objective = accepted(module), find_objective(objective)
        self.batch_size, self.plan = batch_size, Plan() if plan is None else plan
        self.names = select_parameters(self.module, parameters)
        self._automatic = batch_size == "auto"
        self._warned_of, self._paths = set(self.plan.autograd), set()

    @property
    def n_parameters(self):
        """Dimension d of the features."""
        return sum(self.module.get_parameter(name).numel() for name in self.names)

    @property
    def parameter(self):
        """One of the network's: of its dtype, and on its device."""
        return next(p for p in self.module.parameters() if p.is_floating_point())

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

        def attempt(plan):
            sink = _Limited(n_rows(X), limit)
            return sink, self.run(plan, X, y, sink, sketch=sketch)

        (sink, findings), plan = settle(attempt, self.plan)
        self.plan, self._paths = plan.laid_out(findings.structure), findings.paths
        self.warn(findings)
        if sink.fits:
            return sink.features()
        return Recomputed(self, X, _labels(y, n_rows(X)), sketch, sink.last)

    def again(self, X, y, sketch):
        """Features that were computed and checked before; only other paths are checked now."""
        sink = Collected(n_rows(X))
        try:
            self.run(self.plan, X, y, sink, sketch=sketch, proved=self._paths)
        except Refuted as refuted:
            raise ValueError(
                "The network takes samples apart in another way when they are computed again with "
                "others, so that features that do not fit into memory can't be computed anew. Keep "
                "them with store= or n_components=."
            ) from refuted
        return sink.features()

    def run(self, plan, X, y, sink, *, sketch=None, proved=None):
        """Push the features into a sink batch by batch; what was found about the network.

        They are checked; where they were before, ``proved`` has the paths that need it no more.

        Raises
        ------
        Refuted
            If the check refutes the plan: what was computed before does not fit.
        """
        require_real_numbers(X)
        n, findings = n_rows(X), Findings()
        if n == 0:
            raise ValueError("X has no samples.")
        y, like = _labels(y, n), self.parameter
        with borrowed(self.module, self.names):
            require_finite_state(self.module)
            tracer = Tracer(self.module, self.objective, self.names, plan)
            check = SelfCheck(tracer, proved)
            step, structure = self._rows_of_a_batch(tracer, check, X), dict(plan.structure)
            head = min(step, PROVED) if proved is None and self._automatic else step
            for rows in _batches(n, step, head):
                x = to_batch(X, rows, like.dtype, like.device)
                whole = sketch is None and not self.objective.traced
                rooms = sink.rooms(n_rows(x)) if whole else {}
                trace = tracer(x, y[rows].to(like.device), rooms=rooms)
                check.batch(x, trace)
                _take_in(findings, trace, self.objective.name)
                require_alike(plan, structure, structure_of(trace.blocks))
                features = Features(trace.factors, _spec(trace, like), dict(structure))
                features = features.traced() if self.objective.traced else features
                sink.add(features if sketch is None else sketch(features))
                report(rows.stop, n)
        findings.structure, findings.paths = structure, check.proved
        return findings

    def rows_of_a_batch(self, X):
        """Samples in one forward pass."""
        if self.batch_size != "auto":
            return self.batch_size
        with borrowed(self.module, self.names):
            tracer = Tracer(self.module, self.objective, self.names, self.plan)
            return self._rows_of_a_batch(tracer, SelfCheck(tracer), X)

    def _rows_of_a_batch(self, tracer, check, X):
        """The same, and the network's rows must not depend on each other."""

        def alone(row):
            with tracer.recorder(1) as recorder:
                logits = tracer.forward(recorder, row)
            if self.batch_size == "auto":
                self.batch_size = max(1, min(MOST_ROWS, BATCH_BYTES // max(1, recorder.n_bytes)))
            return logits

        check.before(to_batch(X, slice(0, LOOKED_AT), tracer.dtype, tracer.device), alone)
        if self.batch_size == "auto":
            alone(to_batch(X, slice(0, 1), tracer.dtype, tracer.device))
        return self.batch_size

    def warn(self, findings):
        """Warn of what runs showed about the network."""
        if findings.probabilities:
            warn_of_probabilities(stacklevel=5)
        slow = [name for name in self.names if name in findings.slow - self._warned_of]
        if slow:
            self._warned_of.update(slow)
            warnings.warn(
                f"No rule covers the parameters {slow}: they take the autograd rule, "
                "which is exact but slower.",
                AutogradRuleWarning,
                stacklevel=4,
            )


class _Limited(Collected):
    """Keeps batches up to a limit of bytes; ``last`` is one of them in any case."""

    def __init__(self, n_samples, limit):
        super().__init__(n_samples)
        self._limit, self.fits, self.last = limit, True, None

    def rooms(self, n_samples):
        """Where the next batch will be, if it is kept."""
        return super().rooms(n_samples) if self.fits else {}

    def add(self, batch):
        """Take in the next batch, if all of its kind will fit."""
        if self.last is None and self._limit is not None:
            self.fits = batch.sample_bytes * self.n_samples <= self._limit
        self.last = batch
        if self.fits:
            super().add(batch)


def _batches(n, step, head):
    """Slices of ``step`` rows, the first of them cut after ``head``."""
    bounds = sorted({min(head, n), *range(0, n, step), n})
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def _take_in(findings, trace, kernel):
    R = trace.scalars.shape[1]
    findings.n_scalars = findings.n_scalars or R
    if findings.n_scalars != R:
        raise ValueError(
            f"The kernel {kernel!r} gives {R} scalars a sample in one batch and "
            f"{findings.n_scalars} in another; there must be as many in every batch."
        )
    findings.slow |= trace.slow.keys()
    if findings.probabilities is not False:
        findings.probabilities = look_like_probabilities(trace.logits)


def _spec(trace, like):
    n, R = trace.scalars.shape
    return Spec(n, R, trace.logits.shape[-1], like.dtype, like.device)


def _labels(y, n):
    return torch.zeros(n, dtype=torch.int64) if y is None else torch.as_tensor(y)
