"""The self-check: the rules against plain autograd, while they run.

Rows of a batch are run again by themselves, with plain autograd: their logits and the
weighted sum of their gradients, parameter by parameter, must be those found in the batch.

* Up to 32 rows of the first batch, and the whole batch whenever the sequence of recorded calls
  changes;
* a few random rows of every other batch, so that rows which a network permutes or mixes
  in a later batch are noticed.

A weight used without its layer is seen as it happens (`capture.Recorder`). A parameter
that differs changes the plan, and the run starts again.
"""

import torch

from .autograd import densified
from .inputs import checked_forward, n_rows, take
from .parameters import TOLERANCE
from .trace import PlanChanged, full_name

KINK_TOLERANCE = {torch.float32: 1e-2, torch.float64: 1e-6}
HEAD_ROWS = 32
SPOT_ROWS = 4
FEWEST_ROWS, SHARE = 2, 64  # small batches: one row in so many, at least these


class SelfCheck:
    """Checks the batches of one run of a `Tracer`."""

    def __init__(self, tracer):
        self.tracer, self.module, self.plan = tracer, tracer.module, tracer.plan
        self.active = tracer.device.type != "meta"
        self._generator = torch.Generator().manual_seed(0)

    def before(self, x):
        """Before the first batch is traced: a row's logits must not depend on the others."""
        if self.active:
            require_independent_rows(self.module, x, self.tracer.dtype)

    def batch(self, x, y, trace):
        """After a batch was traced."""
        if not self.active:
            return
        self._require_finite(trace)
        new = trace.signature not in self.plan.verified
        rows = self._rows(len(y), new).to(y.device)
        if new and (trace.v[rows] == 0).all(2).any():
            # under a zero cotangent every rule looks right: draw others
            again = self.tracer(take(x, rows), y[rows], self._random)
            self._compare(x, y, rows, again, torch.arange(len(rows), device=y.device))
        self._compare(x, y, rows, trace, rows)
        self.plan.verified.add(trace.signature)

    def _rows(self, n, new):
        """Which rows to run again, in random order: a position must not matter either."""
        few = min(max(FEWEST_ROWS, n // SHARE), SPOT_ROWS)
        many = few if not new else n if self.plan.verified else HEAD_ROWS
        return torch.randperm(n, generator=self._generator)[:many]

    def _random(self, logits):
        shape = len(logits), 1, logits.shape[1]
        return torch.randn(shape, generator=self._generator).to(logits)

    def _compare(self, x, y, rows, trace, positions):
        """Hold rows of a batch against a trace in which they have the given positions."""
        x, y = take(x, rows), y[rows]
        if not self._wrong(x, trace, positions, TOLERANCE):
            return
        # rounding in a batch of another size may push an activation over a kink: then the
        # rules must hold where these rows are a batch by themselves, and nearly hold here
        alone = self.tracer(x, y, lambda logits: trace.v[positions])
        everything = torch.arange(len(rows), device=rows.device)
        self._revise(alone, self._wrong(x, alone, everything, TOLERANCE))
        self._revise(trace, self._wrong(x, trace, positions, KINK_TOLERANCE))

    def _wrong(self, x, trace, rows, tolerances):
        """Parameters whose weighted gradients over some rows of a trace autograd denies."""
        v = trace.v[rows]
        weights = torch.randn(v.shape[:2], generator=self._generator).to(v)
        expected = self._reference(x, trace.logits[rows], v, weights)
        found = self._weighted_sums(trace, rows, weights)
        total = torch.stack([g.norm() for g in expected.values()]).norm()
        wrong = set()
        for name, gradient in expected.items():
            # autograd's own rule can only be grossly wrong, and vmap rounds differently
            own = KINK_TOLERANCE if name in self.tracer.others else tolerances
            difference = (found.get(name, 0 * gradient) - gradient).norm()
            if not difference <= own[self.tracer.dtype] * total:
                wrong.add(name)
        return wrong

    def _reference(self, x, logits, v, weights):
        """``sum_i r_i v_i . z_i`` differentiated in one plain backward pass."""
        parameters = self.tracer.parameters
        frozen = [p for p in parameters.values() if not p.requires_grad]
        for p in frozen:
            p.requires_grad_(True)
        try:
            again = checked_forward(self.module, x, self.tracer.dtype)
            _require_same(again.detach(), logits, "again on some rows of a batch")
            if not again.requires_grad:
                raise ValueError(
                    "The network's output does not depend on the selected parameters (or its "
                    "forward pass detaches it), so the kernel would be zero."
                )
            cotangent = torch.einsum("nr,nrk->nk", weights, v)
            gradients = torch.autograd.grad(
                again, list(parameters.values()), cotangent, allow_unused=True
            )
        finally:
            for p in frozen:
                p.requires_grad_(False)
        return {
            name: torch.zeros_like(p) if g is None else densified(g)
            for (name, p), g in zip(parameters.items(), gradients, strict=True)
        }

    def _weighted_sums(self, trace, rows, weights):
        found = {}
        for key, factor in trace.factors.items():
            flat = factor.take(rows).weighted_sum(weights)
            if key in self.tracer.layers:
                parts = self.tracer.layers[key].split(flat)
                found |= {full_name(key, name): part for name, part in parts.items()}
            else:
                found[key] = flat.view(self.module.get_parameter(key).shape)
        return found

    def _require_finite(self, trace):
        for key, factor in trace.factors.items():
            if not all(_is_finite(tensor) for tensor in factor.tensors):
                raise ValueError(
                    f"The gradients of {key!r} contain NaN or infinity for some samples (a "
                    "square root at zero? an overflow?); their kernel would be meaningless."
                )

    def _revise(self, trace, wrong):
        """Another layout, else the autograd rule, else one sample at a time, else an error."""
        if not wrong:
            return
        layouts = {key: layout for key, layout, _ in trace.signature}
        for key, rule in self.tracer.layers.items():
            names = {name for name in rule.names if full_name(key, name) in wrong}
            if names and key in trace.ambiguous:
                self.plan.wrong_layouts.add((key, layouts[key]))
            elif names:
                self.tracer.give_up(key, names)
            wrong -= {full_name(key, name) for name in names}
        if wrong:
            if self.plan.loop:
                raise ValueError(
                    f"The gradients of {sorted(wrong)} taken one sample at a time do not add "
                    "up to those of the batch: the network is not a function of single rows."
                )
            self.plan.loop = True
        raise PlanChanged


def require_independent_rows(module, x, dtype):
    """Refuse a network whose logits of a row depend on the rest of the batch."""
    n = min(n_rows(x), SPOT_ROWS)
    if n == 1:
        return
    x = take(x, slice(0, n))
    logits = checked_forward(module, x, dtype).detach()
    try:
        alone = checked_forward(module, take(x, slice(n - 1, n)), dtype).detach()
    except ValueError as error:
        raise ValueError(
            "The network fails on one row alone, so its logits depend on the rest of the batch "
            "(BatchNorm without running statistics?); the kernel of a pair would not be "
            f"defined. {error}"
        ) from error
    _require_same(alone, logits[n - 1 :], "on one row alone and in a batch")


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


def _is_finite(tensor):
    """One pass, no temporary; NaN survives in the extremes."""
    return all(torch.isfinite(extreme) for extreme in tensor.aminmax())
