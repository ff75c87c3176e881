"""One batch through the network: layer calls, turned into factors by their rules."""

from dataclasses import dataclass, field

import torch

from .autograd import batched_gradients, explained, looped_gradients
from .capture import Recorder, backward
from .factors import Dense
from .inputs import checked_forward
from .rules import find_rule


@dataclass
class Plan:
    """What a run settles on; hand it to the next run for factors that fit together."""

    autograd: set = field(default_factory=set)  # parameter names that no rule may cover
    wrong_layouts: set = field(default_factory=set)  # (key, layout) refuted by the check
    dense: dict = field(default_factory=dict)  # key -> materialise?
    loop: bool = False  # one sample at a time, where vmap failed
    verified: set = field(default_factory=set)  # signatures that passed the check
    slow: set = field(default_factory=set)  # parameters that took the autograd rule
    warned: bool = False


class PlanChanged(Exception):
    """The plan changed in the middle of a run: start again."""


@dataclass
class Trace:
    """One batch: its factors by key, and what the check needs of the pass."""

    factors: dict
    signature: tuple
    ambiguous: set  # keys of layers whose input admits another layout
    logits: torch.Tensor
    v: torch.Tensor


class Tracer:
    """Traces batches under one network, cotangent, parameter selection and plan."""

    def __init__(self, module, cotangent, names, plan):
        self.module, self.cotangent, self.names, self.plan = module, cotangent, names, plan
        first = next(p for p in module.parameters() if p.is_floating_point())
        self.dtype, self.device = first.dtype, first.device

    @property
    def parameters(self):
        """The selected parameters, by name."""
        parameters = dict(self.module.named_parameters())
        return {name: parameters[name] for name in self.names}

    def prepare(self):
        """Find the rules of the plan; let autograd see the parameters that have none."""
        selected = {id(p): name for name, p in self.parameters.items()}
        owners = {}
        for module in self.module.modules():
            for p in module._parameters.values():
                owners[id(p)] = owners.get(id(p), 0) + 1
        self.layers, covered = {}, {}
        for key, module in self.module.named_modules():
            rule = find_rule(module)
            names = {
                name
                for name, p in module._parameters.items()
                if rule is not None
                and name in rule.parameter_names
                and owners[id(p)] == 1  # tied weights: one gradient, several layers
                and id(p) in selected
                and selected[id(p)] not in self.plan.autograd
            }
            if names:
                self.layers[key] = rule(module, names)
                covered |= {full_name(key, name): module._parameters[name] for name in names}
        self.covered = covered
        self.others = {n: p for n, p in self.parameters.items() if n not in covered}
        for p in self.others.values():
            p.requires_grad_(True)

    def __call__(self, x, y, v=None):
        """Trace a batch; ``v`` replaces the cotangents (the check draws its own)."""
        modules = {key: rule.module for key, rule in self.layers.items()}
        with Recorder(modules, self.covered.values()) as recorder:
            logits = checked_forward(self.module, x, self.dtype)
            recorder.recording = False
            self._give_up_weights(recorder.used_outside)
            v = self.cotangent(logits.detach().clone(), y) if v is None else v(logits)
            with explained():
                reached = backward(logits, v, recorder.calls, list(self.others.values()))
        calls = [call for call in recorder.calls if any(g is not None for g in call.gradients)]
        layouts = [self._layout(call, len(v)) for call in calls]
        factors = self._rule_factors(calls, layouts, v)
        names = [name for name, hit in zip(self.others, reached, strict=True) if hit]
        factors |= self._autograd_factors(names, x, v)
        signature = tuple(
            (call.key, layout, call.input.shape[0] // len(v) if call.input.ndim else 0)
            for call, layout in zip(calls, layouts, strict=True)
        )
        ambiguous = {call.key for call in calls if len(self._layouts(call, len(v))) > 1}
        return Trace(factors, signature, ambiguous, logits.detach(), v)

    def give_up(self, key, names=None):
        """Leave parameters of a layer (all of them by default) to the autograd rule."""
        names = self.layers[key].names if names is None else names
        self.plan.autograd |= {full_name(key, name) for name in names}

    def _give_up_weights(self, ids):
        names = {name for name, p in self.covered.items() if id(p) in ids}
        if names:
            self.plan.autograd |= names
            raise PlanChanged

    def _layouts(self, call, n):
        possible = self.layers[call.key].layouts(call.input, n)
        return [one for one in possible if (call.key, one) not in self.plan.wrong_layouts]

    def _layout(self, call, n):
        possible = self._layouts(call, n)
        if not possible:
            self.give_up(call.key)
            raise PlanChanged
        return possible[0]

    def _rule_factors(self, calls, layouts, v):
        factors, (n, n_cotangents, _) = {}, v.shape
        for key in dict.fromkeys(call.key for call in calls):
            mine = [k for k, call in enumerate(calls) if call.key == key]
            own = [calls[k] for k in mine], [layouts[k] for k in mine]
            dense = self.plan.dense.get(key)
            try:
                factors[key] = self.layers[key].factor(*own, n, n_cotangents, dense=dense)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError, IndexError):
                # a call that the rule was not made for; autograd is
                self.give_up(key)
                raise PlanChanged from None
            self.plan.dense.setdefault(key, isinstance(factors[key], Dense))
        return factors

    def _autograd_factors(self, names, x, v):
        self.plan.slow.update(names)
        if not names:
            return {}
        if not self.plan.loop:
            try:
                gradients = batched_gradients(self.module, names, x, v)
            except Exception:  # vmap's failures have no common type
                self.plan.loop = True
        if self.plan.loop:
            gradients = looped_gradients(self.module, names, x, v)
        n_cotangents = v.shape[1]
        return {
            name: Dense(phi.detach().flatten(0, 1), n_cotangents) for name, phi in gradients.items()
        }


def full_name(key, name):
    """The name of a parameter in the whole network."""
    return f"{key}.{name}" if key else name
