"""Capture of operations: where parameters take part in a forward pass, and who owns the rows.

A torch-function mode sees every operation. Where a selected parameter is an argument, the rule of
that operation records the other arguments and the *edge* of the output's gradient: not the
tensor, which an in-place activation rewrites after the call. A repeated operation is one more
position. What is computed from parameters and constants alone is a weight, too. What no rule
knows is still seen: such parameters take the autograd rule.
"""

from dataclasses import dataclass, field

import torch
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from .compositions import COMPOSED, opened
from .following import Operation, label
from .names import CORE, INFORMATION, is_in_place, name_of
from .picking import after_assignment
from .rules import RULES
from .samples import CONSTANT, UNKNOWN, Samples, guesses, tensors_in

_LABEL = "_sample_axis"  # attribute of tensors that operations make


@dataclass(frozen=True, eq=False)
class Weight:
    """A selected parameter, or a tensor computed from such and constants.

    ``names`` are the parameters it depends on; ``name`` is its own, None for a derived one, whose
    ``origin`` is the operation it comes from.
    """

    tensor: torch.Tensor
    names: frozenset
    name: str | None = None
    origin: tuple | None = None
    version: int = 0

    @property
    def is_stale(self):
        """Whether a derived weight was written to since."""
        return self.name is None and _version(self.tensor) != self.version


@dataclass
class Call:
    """One operation with weights: its rule, its output's edge and who owns the rows."""

    use: object  # the rule's record
    weights: dict  # role -> Weight
    edge: GradientEdge
    where: Samples
    guess: tuple | None  # what a guessed label is refuted by
    behind: list  # nodes of the graph that the other arguments come from
    gradients: list = field(default_factory=list)  # one tensor or None per scalar
    versions: list = field(init=False)  # of what the rule keeps

    def __post_init__(self):
        self.versions = self._versions

    @property
    def _versions(self):
        return [_version(v) for v in vars(self.use).values() if isinstance(v, torch.Tensor)]

    @property
    def names(self):
        """Parameters that take part in it."""
        return frozenset().union(*(w.names for w in self.weights.values()))

    @property
    def is_stale(self):
        """Whether a derived weight, or an input that the rule keeps, was written to since."""
        return self.versions != self._versions or any(w.is_stale for w in self.weights.values())


class Recorder(TorchFunctionMode):
    """Records the operations that parameters take part in, and labels every tensor.

    Enter it for the forward pass, and set ``recording`` to False.

    Attributes
    ----------
    calls : list of Call
    opaque : set of str
        Parameters in operations without a rule.
    n_bytes : int
        Size of all that operations made.
    path : list of str
        Their names, in order.
    plain : bool
        Whether nothing but the operations that networks are made of met the samples.
    """

    def __init__(self, module, parameters, n, plan):
        super().__init__()
        self.n, self.plan, self.recording = n, plan, True
        self._own = {id(t): (CONSTANT, t, _version(t)) for t in _constants(module)}
        self.weights = {id(p): Weight(p, frozenset([k]), k) for k, p in parameters.items()}
        self.calls, self.opaque, self.n_bytes, self.plain = [], set(), 0, True
        self._outputs, self._count, self.path, self._stale, self._behind = [], {}, [], [], []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, name_of(function)
        if name in _INFORMATION:
            return function(*args, **kwargs)
        tensors = tensors_in((args, kwargs))
        weights = [w for w in map(self.weight, tensors) if w is not None]
        weights = weights if torch.is_grad_enabled() else []
        if name in COMPOSED and (weights or name == "multi_head_attention_forward"):
            composition = _composition(name, args, kwargs)
            if composition is not None:
                with self:
                    return composition()
        if weights and any(self.label_of(t) != CONSTANT for t in tensors):
            return self._use(name, function, args, kwargs, weights)
        versions = [_version(t) for t in tensors] if weights else []
        out = self.run(name, function, args, kwargs, tensors)
        if weights:
            self._derive((name, function, args, kwargs, versions), out, weights)
        return out

    def gradients(self, outputs, inputs, weights, **options):
        """`torch.autograd.grad`; operations that run again meanwhile do what they did before.

        Activation checkpointing runs them again.
        """
        with self:
            return _GRAD(outputs, inputs, weights, retain_graph=True, allow_unused=True, **options)

    # -- labels ---------------------------------------------------------------------------

    def label_of(self, tensor):
        """Where the samples are in a tensor."""
        own = self._own.get(id(tensor))
        if own is not None:
            return own[0] if own[2] == _version(tensor) else UNKNOWN
        found, version, node = getattr(tensor, _LABEL, (UNKNOWN, 0, None))
        # a custom function that writes by other ways than torch's is a node of its own
        return found if version == _version(tensor) and node is tensor.grad_fn else UNKNOWN

    def set_label(self, tensor, where):
        """Note where the samples are in a tensor, as it is now."""
        if id(tensor) in self._own:
            self._own[id(tensor)] = (where, tensor, _version(tensor))
        else:
            setattr(tensor, _LABEL, (where, _version(tensor), tensor.grad_fn))

    def run(self, name, function, args, kwargs, tensors=None):
        """The operation itself, with its outputs labelled."""
        self.path.append(name)
        base = self._base(name, function, args)
        tensors = tensors_in((args, kwargs)) if tensors is None else tensors
        before = {id(t): self.label_of(t) for t in tensors}  # it may write to some
        self._behind = [t.grad_fn for t in tensors if t.grad_fn and not self.weight(t)]
        out = function(*args, **kwargs)
        operation = Operation(function, args, kwargs, lambda t: before[id(t)], self.n)
        if name == "__setitem__":
            where, self.plain = after_assignment(operation), False
            self.set_label(args[0], where)
        else:
            where = CONSTANT
            labels = [(o, label(name, operation, o, tensors)) for o in tensors_in(out)]
            self._note_what_is_rare(name, tensors, [where for _, where in labels], before)
            for o, where in labels:
                self.set_label(o, where)
                self.n_bytes += 0 if o._is_view() else o.numel() * o.element_size()
        if base is not None and where not in (CONSTANT, UNKNOWN):
            self.set_label(*base)
        return out

    def _note_what_is_rare(self, name, tensors, labels, before):
        """Labels are proved by structure where they come from common operations alone."""
        if self.plain and any(where != CONSTANT for where in before.values()):
            picked = any(isinstance(where, Samples) and where.owners for where in labels)
            by_tensors = name == "__getitem__" and len(tensors) > 1
            self.plain = name in _CORE and not picked and not by_tensors

    def _base(self, name, function, args):
        """What a view that is written to shows, with its label if that has an axis."""
        written = name == "__setitem__" or is_in_place(function)
        if not (written and args and isinstance(args[0], torch.Tensor) and args[0]._is_view()):
            return None
        where = self.label_of(args[0]._base)
        return None if where in (CONSTANT, UNKNOWN) else (args[0]._base, where)

    # -- weights --------------------------------------------------------------------------

    def weight(self, tensor):
        """The weight that a tensor is, or None."""
        found = self.weights.get(id(tensor)) if isinstance(tensor, torch.Tensor) else None
        if found is not None and found.is_stale:
            self.opaque |= found.names
            del self.weights[id(tensor)]
            self._stale.append(tensor)  # no other gets its id
            return None
        return found

    def redone(self, weight, where):
        """A weight computed again where it meets samples: what went into it is one row a sample.

        A state of zeros with which a loop begins is a constant, until it is added to them.
        """
        if weight.origin is None or weight.tensor.shape[where.axis] != where.size(self.n):
            return None
        name, function, args, kwargs, versions, position = weight.origin
        tensors = tensors_in((args, kwargs))
        if versions != [_version(t) for t in tensors]:
            return None  # by now, it would come out otherwise
        if name in _PIECES and len(tensors) == 1:
            whole = self.redone(self.weight(tensors[0]), where)
            pieces = whole is not None and self.run(name, function, (whole, *args[1:]), kwargs)
            return pieces[position] if pieces else None
        others = [t for t in tensors if not self.weight(t)]
        if name not in RULES or len(others) != 1:
            return None
        (constant,) = others
        if constant.ndim <= where.axis or constant.shape[where.axis] != where.size(self.n):
            return None
        self.set_label(constant, where)
        try:
            weights = [self.weight(t) for t in tensors if self.weight(t)]
            return self._use(name, function, args, kwargs, weights)
        finally:
            self.set_label(constant, CONSTANT)

    def _derive(self, origin, out, weights):
        name = origin[0]
        names = frozenset().union(*(w.names for w in weights))
        for position, tensor in enumerate(tensors_in(out)):
            if not tensor.requires_grad or id(tensor) in self.weights:
                continue
            axis = self._new_axis(tensor, weights[0].tensor) if name in _EXPANSIONS else None
            if axis is None or len(weights) > 1:
                own = (*origin, position), _version(tensor)
                self.weights[id(tensor)] = Weight(tensor, names, None, *own)
            elif self.recording:
                where = Samples(axis)
                self.set_label(tensor, where)
                use = RULES["expand"].Use(weights[0].tensor.shape)
                edge = get_gradient_edge(tensor)
                self.calls.append(Call(use, {"weight": weights[0]}, edge, where, None, []))

    def _new_axis(self, tensor, source):
        """The axis that an expansion made for the samples."""
        sizes = (1,) * (tensor.ndim - source.ndim) + tuple(source.shape)
        if self.n == 1:
            return -1 if all(old in (1, new) for old, new in zip(sizes, tensor.shape)) else None
        pairs = enumerate(zip(sizes, tensor.shape))
        return next((axis for axis, (old, new) in pairs if old == 1 and new == self.n), None)

    def _use(self, name, function, args, kwargs, weights):
        """An operation with samples and weights, by its rule if it has one."""
        written = is_in_place(function) and self.weight(args[0])
        if name in RULES and not written and not any(map(_is_strange, tensors_in((args, kwargs)))):
            found = self._ruled(name, function, args, kwargs)
            if found is not NotImplemented:
                return found
        out = self.run(name, function, args, kwargs)
        if self.recording and any(t.requires_grad for t in tensors_in(out)):
            self.opaque |= frozenset().union(*(w.names for w in weights))
        return out

    def _ruled(self, name, function, args, kwargs):
        try:
            return RULES[name].apply(self, name, function, args, kwargs)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
            if is_in_place(function):
                raise
            return NotImplemented  # a form that the rule does not foresee, or the network's error

    def record(self, use, weights, out):
        """Note a call with weights (role -> tensor or None); returns its output to go on with."""
        behind = self._behind
        weights = {role: self.weight(t) for role, t in weights.items() if self.weight(t)}
        if not out.requires_grad or not self.recording:
            return self._separated(out)
        out = self._separated(out)
        where, guess = self.where(self.label_of(out), out.shape, weights)
        if where is None:
            self.opaque |= frozenset().union(*(w.names for w in weights.values()))
            return out
        self.calls.append(Call(use, weights, get_gradient_edge(out), where, guess, behind))
        self._outputs.append((out, out._version))
        return out

    def record_expanded(self, weight, expanded, guess):
        """Note a weight that is expanded to one copy a sample, its first axis."""
        if self.recording:
            use = RULES["expand"].Use(weight.tensor.shape)
            edge = get_gradient_edge(expanded)
            self.calls.append(Call(use, {"weight": weight}, edge, Samples(0), guess, []))

    def where(self, label, shape, weights):
        """A label with an axis, guessed if need be, and what refutes the guess."""
        if label not in (CONSTANT, UNKNOWN):
            return label, None
        names = tuple(sorted(frozenset().union(*(w.names for w in weights.values()))))
        number = self._count[names] = self._count.get(names, 0) + 1
        for where in guesses(shape, self.n):
            if (names, number, where) not in self.plan.refuted:
                return where, (names, number, where)
        return None, None

    def _separated(self, out):
        """A copy of a view, where views are written to: that rewrites the edge's history."""
        if not (self.plan.clone and out._is_view()):
            return out
        copy = out.clone()
        self.set_label(copy, self.label_of(out))
        return copy

    @property
    def views_were_written_to(self):
        """Whether an edge may have been cut off by an operation in place."""
        return any(out._version != version and out._is_view() for out, version in self._outputs)


_INFORMATION, _CORE = frozenset(INFORMATION.split()), frozenset(CORE.split())
_PIECES = {"chunk", "split", "tensor_split", "unsafe_chunk", "unsafe_split"}
_EXPANSIONS = {"expand", "expand_as", "broadcast_to", "repeat"}


def _constants(module):
    """Tensors that belong to a module: parameters, buffers, plain attributes."""
    yield from module.parameters()
    yield from module.buffers()
    for child in module.modules():
        yield from (v for v in vars(child).values() if isinstance(v, torch.Tensor))


def _version(tensor):
    """How often a tensor was written to; those of inference mode don't tell."""
    return 0 if tensor.is_inference() else tensor._version


def _composition(name, args, kwargs):
    try:
        return COMPOSED[name](*args, **kwargs)
    except (LookupError, TypeError, ValueError):
        return None  # arguments in a form that is not foreseen


def _is_strange(tensor):
    """Whether a tensor is of a transform of functions, or complex."""
    return tensor.is_complex() or torch._C._functorch.is_functorch_wrapped_tensor(tensor)


_GRAD = opened(torch.autograd.grad)


def hidden_uses(scalars, calls, parameters):
    """Names of parameters that the scalars depend on by other ways than the recorded calls.

    Custom functions and compiled code hide what they do, but not from the graph: it is walked,
    and where it comes to a recorded call, it is left for what the call's other arguments come
    from. Whatever parameter is still met takes part in something that nobody saw. So does one
    that a derived weight comes from, if that was not seen.
    """
    recorded = {call.edge.node: call.behind for call in calls}
    names, seen = {id(p): name for name, p in parameters.items()}, set()
    found = _met([scalars.grad_fn], recorded, names, seen)
    derived = {id(w): w for call in calls for w in call.weights.values() if w.name is None}
    for weight in derived.values():
        found |= _met([weight.tensor.grad_fn], {}, names, set()) - weight.names
    return frozenset(found)


def _met(waiting, recorded, names, seen):
    """Names of the leaves of a graph, which is left at recorded nodes for what is behind them."""
    found = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in recorded:
            waiting += recorded[node]
            continue
        found |= {names[id(v)] for v in [getattr(node, "variable", None)] if id(v) in names}
        waiting += [following for following, _ in node.next_functions]
    return found
