"""From a network and data to factors: batches, the self-check, and the plan.

The plan is what a run settles on: which parameters have to take the autograd rule, where
the samples lie in each layer's input, and which layers are materialised. The self-check
compares the rules with autograd on the first rows of a run, and again whenever the
sequence of recorded calls changes; a parameter that differs changes the plan, and the run
starts again. So nothing is ever skipped, and no wrong rule goes unnoticed.
"""

import warnings
from dataclasses import dataclass, field

import torch

from ..exceptions import AutogradRuleWarning, ProbabilityOutputWarning
from .autograd import batched_gradients, densified, looped_gradients
from .capture import Recorder, backward
from .factors import Dense
from .features import Features
from .inputs import checked_forward, forward, n_rows, take, to_batch
from .parameters import TOLERANCE, refuse_layers, require_finite_state, select_parameters
from .rules import find_rule
from .session import borrowed

CHECK_ROWS = 32


@dataclass
class Plan:
    """What a run settled on; hand it to the next run for factors that fit together."""

    autograd: set = field(default_factory=set)  # parameter names that no rule may cover
    wrong_layouts: set = field(default_factory=set)  # (key, layout) refuted by the check
    dense: dict = field(default_factory=dict)  # key -> materialise?
    loop: bool = False  # one sample at a time, where vmap failed
    verified: set = field(default_factory=set)  # signatures that passed the check
    slow: set = field(default_factory=set)  # parameters that took the autograd rule
    warned: bool = False


class _PlanChanged(Exception):
    """The plan changed in the middle of a run: start again."""


@dataclass
class _Trace:
    """One batch: its factors by key, and what the check needs of the pass."""

    factors: dict
    signature: tuple
    ambiguous: set  # keys of layers whose input admits another layout
    logits: torch.Tensor
    v: torch.Tensor


class Extractor:
    """Computes the factors of labelled samples under one network, cotangent and plan."""

    def __init__(self, module, cotangent, *, parameters=None, batch_size=256, plan=None):
        self.module, self.cotangent, self.batch_size = module, cotangent, batch_size
        self.plan = Plan() if plan is None else plan
        self.names = select_parameters(module, parameters)
        refuse_layers(module)
        first = next(p for p in module.parameters() if p.is_floating_point())
        self.dtype, self.device = first.dtype, first.device

    @property
    def n_parameters(self):
        """Dimension d of the features."""
        parameters = dict(self.module.named_parameters())
        return sum(parameters[name].numel() for name in self.names)

    @property
    def on_meta(self):
        return self.device.type == "meta"

    def __call__(self, X, y=None, *, sketch=None, progress=None):
        """Features of the samples; ``progress(done, total)`` is called after each batch.

        ``sketch=(n_components, seed)`` sketches batch by batch: no factor outlives its batch.
        """
        n = n_rows(X)
        if n == 0:
            raise ValueError("X has no samples.")
        y = torch.zeros(n, dtype=torch.int64) if y is None else torch.as_tensor(y)
        with borrowed(self.module):
            require_finite_state(self.module)
            while True:
                try:
                    batches = list(self._batches(X, y, n, sketch, progress))
                    break
                except _PlanChanged:
                    continue
        self._warn()
        return Features.cat(batches)

    def _batches(self, X, y, n, sketch, progress):
        layers, self._probabilities = self._layers(), True
        for start in range(0, n, self.batch_size):
            rows = slice(start, min(start + self.batch_size, n))
            x = to_batch(X, rows, self.dtype, self.device)
            labels = y[rows].to(self.device)
            if start == 0:
                self._require_independent_rows(take(x, slice(0, CHECK_ROWS)))
            trace = self._trace(layers, x, labels)
            self._check(layers, x, labels, trace)
            self._probabilities = self._probabilities and _look_like_probabilities(trace.logits)
            features = Features(trace.factors, trace.v)
            yield features if sketch is None else features.sketch(*sketch)
            if progress is not None:
                progress(rows.stop, n)

    # -- one batch ------------------------------------------------------------------------

    def _layers(self):
        """Rules of the layers that own selected parameters: dict of key -> rule."""
        wanted = dict(self.module.named_parameters())
        selected = {id(wanted[name]): name for name in self.names}
        owners = {}
        for module in self.module.modules():
            for p in module._parameters.values():
                owners[id(p)] = owners.get(id(p), 0) + 1
        layers, covered = {}, set()
        for key, module in self.module.named_modules():
            rule = find_rule(module)
            names = {
                name: selected[id(p)]
                for name, p in module._parameters.items()
                if rule is not None
                and name in rule.parameter_names
                and id(p) in selected
                and owners[id(p)] == 1  # tied weights: one gradient, several layers
                and selected[id(p)] not in self.plan.autograd
            }
            if names:
                layers[key] = rule(module, set(names))
                covered |= set(names.values())
        self._others = [name for name in self.names if name not in covered]
        for name in self._others:
            wanted[name].requires_grad_(True)
        return layers

    def _warn(self):
        if self._probabilities:
            warnings.warn(
                "Every row of the network's output is non-negative and sums to 1: it looks like "
                "probabilities, and the kernel is defined on logits. Remove the softmax and "
                "train with CrossEntropyLoss.",
                ProbabilityOutputWarning,
                stacklevel=4,
            )
        slow = [name for name in self._others if name in self.plan.slow]
        if slow and not self.plan.warned:
            self.plan.warned = True
            warnings.warn(
                f"No layer rule covers the parameters {slow}: they take the autograd rule, "
                "which is exact but slower.",
                AutogradRuleWarning,
                stacklevel=4,
            )

    def _trace(self, layers, x, y):
        with Recorder({key: rule.module for key, rule in layers.items()}) as recorder:
            logits = checked_forward(self.module, x)
        _require_columns(y, logits.shape[1])
        v = self.cotangent(logits.detach(), y)
        parameters = dict(self.module.named_parameters())
        others = [parameters[name] for name in self._others]
        reached = backward(logits, v, recorder.calls, others)
        calls = [call for call in recorder.calls if any(g is not None for g in call.gradients)]
        layouts = [self._layout(layers, call, len(v)) for call in calls]
        factors = self._rule_factors(layers, calls, layouts, v)
        names = [name for name, hit in zip(self._others, reached, strict=True) if hit]
        self.plan.slow.update(names)
        factors |= self._autograd_factors(names, x, v)
        signature = tuple((c.key, layout) for c, layout in zip(calls, layouts, strict=True))
        ambiguous = {call.key for call in calls if len(self._layouts(layers, call, len(v))) > 1}
        return _Trace(factors, signature, ambiguous, logits.detach(), v)

    def _layouts(self, layers, call, n):
        possible = layers[call.key].layouts(call.input, n)
        return [one for one in possible if (call.key, one) not in self.plan.wrong_layouts]

    def _layout(self, layers, call, n):
        possible = self._layouts(layers, call, n)
        if not possible:
            self._give_up(layers, call.key)
            raise _PlanChanged
        return possible[0]

    def _give_up(self, layers, key, names=None):
        names = layers[key].names if names is None else names
        self.plan.autograd |= {_full_name(key, name) for name in names}

    def _rule_factors(self, layers, calls, layouts, v):
        factors, n, n_cotangents = {}, len(v), v.shape[1]
        for key in dict.fromkeys(call.key for call in calls):
            mine = [k for k, call in enumerate(calls) if call.key == key]
            try:
                factor = layers[key].factor(
                    [calls[k] for k in mine],
                    [layouts[k] for k in mine],
                    n,
                    n_cotangents,
                    dense=self.plan.dense.get(key),
                )
            except (RuntimeError, ValueError, IndexError):
                # a call that the rule was not made for; autograd is
                self._give_up(layers, key)
                raise _PlanChanged from None
            self.plan.dense.setdefault(key, isinstance(factor, Dense))
            factors[key] = factor
        return factors

    def _autograd_factors(self, names, x, v):
        if not names:
            return {}
        if not self.plan.loop:
            try:
                gradients = batched_gradients(self.module, names, x, v)
            except Exception:  # vmap's failures have no common type
                self.plan.loop = True
        if self.plan.loop:
            gradients = looped_gradients(self.module, names, x, v)
        return {
            name: Dense(phi.detach().flatten(0, 1), v.shape[1]) for name, phi in gradients.items()
        }

    # -- the self-check -------------------------------------------------------------------

    def _check(self, layers, x, y, trace):
        if self.on_meta or trace.signature in self.plan.verified:
            return
        n = n_rows(x)
        if n > CHECK_ROWS:
            head = slice(0, CHECK_ROWS)
            self._verify(layers, take(x, head), y[head])
        if trace.signature not in self.plan.verified:
            self._verify(layers, x, y, trace)

    def _verify(self, layers, x, y, trace=None):
        trace = self._trace(layers, x, y) if trace is None else trace
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(trace.v.shape[:2], generator=generator, dtype=torch.float64)
        weights = weights.to(self.device, self.dtype)
        expected = self._reference(x, trace, weights)
        found = self._weighted_sums(layers, trace, weights)
        total = torch.stack([g.norm() for g in expected.values()]).norm()
        tolerance = TOLERANCE[self.dtype] * total
        wrong = [
            name
            for name, gradient in expected.items()
            if not (found.get(name, 0 * gradient) - gradient).norm() <= tolerance
        ]
        if wrong:
            self._revise(layers, trace, set(wrong))
        self.plan.verified.add(trace.signature)

    def _reference(self, x, trace, weights):
        """``sum_i r_i v_i . z_i`` differentiated in one plain backward pass."""
        parameters = {n: p for n, p in self.module.named_parameters() if n in set(self.names)}
        frozen = [p for p in parameters.values() if not p.requires_grad]
        for p in frozen:
            p.requires_grad_(True)
        logits = forward(self.module, x)
        self._require_same(logits.detach(), trace.logits, "twice on the same rows")
        cotangent = torch.einsum("nr,nrk->nk", weights, trace.v)
        gradients = torch.autograd.grad(
            logits, list(parameters.values()), cotangent, allow_unused=True
        )
        for p in frozen:
            p.requires_grad_(False)
        return {
            name: torch.zeros_like(p) if g is None else densified(g)
            for (name, p), g in zip(parameters.items(), gradients, strict=True)
        }

    def _weighted_sums(self, layers, trace, weights):
        found = {}
        for key, factor in trace.factors.items():
            flat = factor.weighted_sum(weights)
            if key in layers:
                for name, part in layers[key].split(flat).items():
                    found[_full_name(key, name)] = part
            else:
                found[key] = flat.view(self.module.get_parameter(key).shape)
        return found

    def _require_independent_rows(self, x):
        """One row alone must have the logits that it has in a batch."""
        if n_rows(x) == 1 or self.on_meta:
            return
        logits = checked_forward(self.module, x).detach()
        try:
            alone = forward(self.module, take(x, slice(0, 1)))
        except Exception as error:
            raise ValueError(
                "The network fails on one row alone, so its logits depend on the rest of the "
                "batch (BatchNorm without running statistics?); the kernel of a pair would "
                f"not be defined. Original error: {error}"
            ) from error
        self._require_same(alone.detach(), logits[:1], "on one row alone and in a batch")

    def _require_same(self, logits, others, how):
        scale = others.abs().max().clamp(min=1)
        tolerance = 1e-4 if self.dtype == torch.float32 else 1e-8
        if logits.shape != others.shape or (logits - others).abs().max() > tolerance * scale:
            raise ValueError(
                f"The network's logits differ when it is run {how}: they depend on the rest of "
                "the batch (BatchNorm without running statistics?) or on random numbers "
                "(functional dropout?). Make the network's evaluation mode deterministic and "
                "sample-wise."
            )

    def _revise(self, layers, trace, wrong):
        """Another layout, else the autograd rule, else one sample at a time, else an error."""
        layouts = dict(trace.signature)
        for key, rule in layers.items():
            names = {name for name in rule.names if _full_name(key, name) in wrong}
            if names and key in trace.ambiguous:
                self.plan.wrong_layouts.add((key, layouts[key]))
            elif names:
                self._give_up(layers, key, names)
            wrong -= {_full_name(key, name) for name in names}
        if wrong:
            if self.plan.loop:
                raise ValueError(
                    f"The gradients of {sorted(wrong)} taken one sample at a time do not add "
                    "up to those of the batch: the network is not a function of single rows."
                )
            self.plan.loop = True
        raise _PlanChanged


def _look_like_probabilities(logits):
    if logits.device.type == "meta" or logits.shape[1] == 1:
        return False
    return bool((logits >= 0).all() and ((logits.sum(1) - 1).abs() < 1e-4).all())


def _require_columns(y, n_logits):
    if y.device.type == "meta":
        return
    n_classes = max(n_logits, 2)
    if y.min() < 0 or y.max() >= n_classes:
        outside = sorted(set(y[(y < 0) | (y >= n_classes)].tolist()))
        raise ValueError(
            f"y contains {outside[:5]}, but the network has {n_logits} logit(s): labels must be "
            f"logit columns from 0 to {n_classes - 1}."
        )


def _full_name(key, name):
    return f"{key}.{name}" if key else name
