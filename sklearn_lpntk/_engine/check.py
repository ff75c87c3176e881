"""The self-check: every row of every batch, by structure where it can be and by numbers else.

By structure: labels tell of every row of a recorded call of which sample it is (`samples`), and
the graph tells that no other use of a parameter exists (`capture.hidden_uses`). By numbers: the
sum of the rows with random weights, divided by their norms so that the large can't hide the
small, must be what one plain backward pass gives, parameter by parameter. That proves the rules
on every path that batches take through the network, once; and every batch in which it is only
guessed of which samples the rows are, in which rarer operations tell it, or in which a parameter
takes the autograd rule. A parameter that differs changes the plan, and the run starts again. A
few rows are run by themselves: their logits must be those of the batch.
"""

import torch

from .autograd import densified
from .inputs import checked_forward, n_rows, parts_of, take
from .parameters import TOLERANCE, is_finite
from .plan import Refuted

KINK_TOLERANCE = {torch.float32: 1e-2, torch.float64: 1e-6}
LOOKED_AT = 8  # rows of which some are run before the first batch
HEAVY = 10**7  # parameters of a network that is run on two of them, for a row is dear
FIRST_ROWS, SPOT_ROWS, SHARE = 8, 4, 64  # run by themselves: one row in so many, at most these
NOISE = 20  # in units of what a backward pass at another scale differs by


class SelfCheck:
    """Checks the batches of one run of a `Tracer`.

    Rows that were checked before, on the paths ``proved``, are so no more where structure tells
    of which samples they are.
    """

    def __init__(self, tracer, proved=None):
        self.tracer, self.module, self.plan = tracer, tracer.module, tracer.plan
        self.active = tracer.device.type != "meta"
        self._first, self._rows_since = True, 0
        self._again, self.proved = proved is not None, proved or set()
        self._generator = torch.Generator().manual_seed(0)

    def before(self, x, alone):
        """Before the first batch is traced: a row's logits must not depend on the others.

        ``alone`` gives the logits of one row.
        """
        if self.active and not self._again:
            shape = self.tracer.objective.any_shape
            require_independent_rows(self.module, x, self.tracer.dtype, alone, any_shape=shape)

    def batch(self, x, trace):
        """After a batch was traced."""
        if not self.active:
            return
        if not self._again:
            _require_finite(trace)
            self._require_same_logits(x, trace)
        if not trace.scalars.requires_grad:
            raise ValueError(
                "The network's output does not depend on the selected parameters (or its forward "
                "pass detaches it), so the kernel would be zero."
            )
        if not trace.plain or trace.slow or trace.path not in self.proved:
            norms = _norms(trace)
            self._revise(trace, self._wrong(trace, self._weights(norms), norms))
            self.proved.add(trace.path)
        self._first = False

    def _weights(self, norms):
        """Random weights of the rows, which bring them to a common size."""
        least = torch.finfo(norms.dtype).tiny ** 0.5
        typical = norms.max().clamp(min=least)
        u = torch.rand(norms.shape, generator=self._generator).to(norms) + 0.5
        signs = torch.randint(0, 2, norms.shape, generator=self._generator).to(norms) * 2 - 1
        return signs * u * (typical / norms.clamp(min=1e-12 * float(typical)))

    def _wrong(self, trace, weights, norms):
        """Parameters whose weighted sum over the rows of a trace autograd denies."""
        parameters = self.tracer.parameters
        rest = self._weighted_gradients(trace, weights)
        for name, gradient in rest.items():
            known = gradient is not None
            rest[name] = densified(gradient) if known else torch.zeros_like(parameters[name])
        for name, part in _weighted_sums(trace, weights):
            rest[name] = rest[name] - part.view_as(rest[name])
        scale = float((weights * norms).norm())
        errors = {}
        for name, gradient in rest.items():
            error = _norm(gradient)
            own = KINK_TOLERANCE if name in self.plan.autograd else TOLERANCE
            if not error <= own[self.tracer.dtype] * scale:
                errors[name] = error
        return self._above_noise(trace, weights, errors)

    def _above_noise(self, trace, weights, errors):
        """Those among errors that rounding inside of the network doesn't explain.

        It explains none where nothing else tells of which samples the rows are.
        """
        if not errors or (not trace.known and errors.keys() & self.tracer.covered.keys()):
            return set(errors)
        one, other = (self._weighted_gradients(trace, c * weights) for c in (1.0, 1 / 3))
        noise = dict.fromkeys(errors, 0.0)
        for name in errors:
            if one[name] is not None:
                noise[name] = _norm(one[name] - 3 * other[name])
        return {name for name, error in errors.items() if not error <= NOISE * noise[name]}

    def _weighted_gradients(self, trace, weights):
        gradients = trace.recorder.gradients(
            trace.scalars,
            list(self.tracer.parameters.values()),
            weights.view_as(trace.scalars).to(trace.scalars),
        )
        return dict(zip(self.tracer.parameters, gradients))

    def _require_same_logits(self, x, trace):
        """Some rows, in random order and without the others."""
        n = n_rows(x)
        self._rows_since += n
        few = FIRST_ROWS if self._first else min(SPOT_ROWS, self._rows_since // SHARE)
        few = min(few, max(1, n // 2))  # of all rows the mean is the same
        if n == 1 or few == 0:
            return
        self._rows_since = 0
        rows = torch.randperm(n, generator=self._generator)[:few].to(trace.logits.device)
        shape = self.tracer.objective.any_shape
        again = checked_forward(self.module, take(x, rows), self.tracer.dtype, any_shape=shape)
        _require_same(again.detach(), trace.logits[rows], "again on some rows of a batch")

    def _revise(self, trace, wrong):
        """Another guess, else the autograd rule, else one sample at a time, else an error."""
        if not wrong:
            return
        guesses = {c.guess for c in trace.calls if c.guess and wrong & set(c.guess[0])}
        covered = frozenset(wrong & self.tracer.covered.keys())
        if guesses:
            raise Refuted(self.plan.but(refuted=self.plan.refuted | guesses))
        if covered:
            raise Refuted(self.plan.but(autograd=self.plan.autograd | covered))
        if self.plan.loop:
            raise ValueError(
                f"The gradients of {sorted(wrong)} taken one sample at a time do not add "
                "up to those of the batch: the network is not a function of single rows."
            )
        raise Refuted(self.plan.but(loop=True))


def require_independent_rows(module, x, dtype, alone=None, *, any_shape=False):
    """Refuse a network whose logits of a row depend on the rest of the batch; logits of some.

    These are the first row, and those that differ most from it. One row alone tells nothing: None.
    ``alone`` gives the logits of one, by a forward pass that tells something else besides.
    """
    if n_rows(x) == 1:
        return None
    n_parameters = sum(p.numel() for p in module.parameters())
    x = take(x, _unlike(x, SPOT_ROWS if n_parameters < HEAVY else 2))
    alone = alone or (lambda x: checked_forward(module, x, dtype, any_shape=any_shape))
    # with gradients: what the network keeps for later must not be without
    logits = checked_forward(module, x, dtype, any_shape=any_shape).detach()
    try:
        own = alone(take(x, slice(1, 2))).detach()
    except ValueError as error:
        raise ValueError(
            "The network fails on one row alone, so its logits depend on the rest of the "
            "batch (BatchNorm without running statistics?); the kernel of a pair would not "
            f"be defined. {error}"
        ) from error
    _require_same(own, logits[1:2], "on one row alone and in a batch")
    return logits


def _unlike(x, n):
    """The first row, and those with the most entries that are not its own."""
    parts = parts_of(x).values()
    unlike = sum((part != part[:1]).reshape(len(part), -1).sum(1) for part in parts)
    if unlike.device.type == "meta":
        return slice(0, n)
    return [0, *(1 + unlike[1:].argsort(descending=True, stable=True)[: n - 1]).tolist()]


def _norm(x):
    return float(torch.linalg.vector_norm(x, dtype=torch.float64))


def _norms(trace):
    """Norms of the rows, or at least these: (n * R,)."""
    squares = [factor.magnitudes() ** 2 for factor in trace.factors.values()]
    if not squares:
        return trace.scalars.new_zeros(trace.scalars.numel(), dtype=torch.float64)
    return sum(squares).sqrt()


def _weighted_sums(trace, weights):
    """(name, weighted sum of the rows), one by one; all that a parameter has add up."""
    weights = weights.view_as(trace.scalars)
    for block in trace.blocks:
        flat = block.factor.weighted_sum(weights.to(block.factor.tensors[-1].dtype))
        yield from block.parts(flat).items()
    for name, factor in trace.slow.items():
        yield name, factor.weighted_sum(weights.to(factor.phi.dtype))


def _require_same(logits, others, how):
    scale = others.abs().max().clamp(min=1)
    tolerance = 1e-4 if logits.dtype == torch.float32 else 1e-8
    if logits.shape != others.shape or (logits - others).abs().max() > tolerance * scale:
        raise ValueError(
            f"The network's logits differ when it is run {how}: they depend on the rest of the "
            "batch (BatchNorm without running statistics? sequence-first data in a batch-first "
            "layer?) or on random numbers (functional dropout?). Make the network's evaluation "
            "mode deterministic and sample-wise."
        )


def _require_finite(trace):
    for key, factor in trace.factors.items():
        if not all(map(is_finite, factor.tensors)):
            raise ValueError(
                f"The gradients of {key!r} contain NaN or infinity for some samples (a "
                "square root at zero? an overflow?); their kernel would be meaningless."
            )
