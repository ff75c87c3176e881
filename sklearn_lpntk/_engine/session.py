"""Borrow a network: evaluation mode, frozen, and given back exactly as it was."""

import sys
import threading
from contextlib import ExitStack, contextmanager, nullcontext

import torch

from .._runtime.turns import in_turn


@contextmanager
def borrowed(module, names=()):
    """Evaluation mode with every parameter frozen but those named; all is restored on exit.

    The caller's hooks on parameters see and change nothing meanwhile.

    Restored, also after an exception: the modules' attributes, ``requires_grad``, the values
    of parameters and buffers, the global random states of torch, numpy and Python, and
    torch's switches. Other threads wait. Inside of a context that borrows the same module, its
    copies of the values serve again.
    """
    with ExitStack() as stack:
        stack.enter_context(in_turn(module))
        stack.enter_context(_torch_switches(module))
        stack.callback(_restorer(module))
        for child in module.modules():
            child.training = False
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in names)
        yield


def _restorer(module):
    children = [(m, dict(vars(m)), dict(m._buffers)) for m in module.modules()]
    requires_grad = [(p, p.requires_grad) for p in module.parameters()]
    hooks = [(p, p._backward_hooks) for p in module.parameters() if p._backward_hooks]
    # a forward pass may rewrite buffers, and weights: nn.Embedding(max_norm=...) does
    state = [*module.parameters(), *module.buffers()]
    values = [_Value.of(t) for t in state if not t.is_inference()]
    outer = {id(value.tensor): _KEPT.values.get(id(value.tensor)) for value in values}
    _KEPT.values.update((id(value.tensor), value) for value in values)
    for p, _ in hooks:
        p._backward_hooks = None

    def restore():
        for key, value in outer.items():
            _KEPT.values.pop(key) if value is None else _KEPT.values.update({key: value})
        for child, attributes, buffers in children:
            vars(child).clear()
            vars(child).update(attributes)
            child._buffers.clear()
            child._buffers.update(buffers)
        for parameter, callers in hooks:
            parameter._backward_hooks = callers
        for parameter, flag in requires_grad:
            parameter.requires_grad_(flag)
        with torch.no_grad():
            for value in values:
                value.restore()

    return restore


class _Value:
    """A tensor and a copy of what it holds: an outer one's, unless it was written to since."""

    def __init__(self, tensor, copy):
        self.tensor, self.copy, self.version = tensor, copy, tensor._version
        self.address = tensor.data_ptr()

    @classmethod
    def of(cls, tensor):
        known = _KEPT.values.get(id(tensor))
        if known is not None and known.tensor is tensor and not known.is_moved:
            return cls(tensor, known.copy)
        return cls(tensor, tensor.detach().clone())

    @property
    def is_moved(self):
        now = self.tensor._version, self.tensor.data_ptr()
        return now != (self.version, self.address)

    def restore(self):
        # batch normalisation writes its statistics without a new version
        meta = self.tensor.device.type == "meta"
        if self.is_moved or not (meta or torch.equal(self.tensor, self.copy)):
            self.tensor.copy_(self.copy)


class _Kept(threading.local):
    """By the ids of their tensors, the values that this thread will restore, innermost first."""

    def __init__(self):
        self.values = {}


_KEPT = _Kept()


@contextmanager
def _torch_switches(module):
    device = next(module.parameters()).device
    with ExitStack() as stack:
        stack.enter_context(_FAST_PATH())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(full_precision(device))
        stack.enter_context(_EAGER())
        if device.type == "cuda":
            # cuDNN's recurrent backward needs training mode, and its TF32 costs digits
            recurrent = any(isinstance(m, torch.nn.RNNBase) for m in module.modules())
            flags = torch.backends.cudnn.flags(enabled=not recurrent, allow_tf32=False)
            stack.enter_context(flags)
        yield


@contextmanager
def full_precision(device):
    """No autocast, and no float32 product in fewer bits, whatever the caller has set."""
    with _MATMUL():
        if device.type == "meta":
            yield
        else:
            with torch.autocast(device.type, enabled=False):
                yield


class _Shared:
    """A context for all threads: the first to enter opens it, the last to leave closes it."""

    def __init__(self, make):
        self._make, self._lock, self._users, self._open = make, threading.Lock(), 0, None

    @contextmanager
    def __call__(self):
        with self._lock:
            if self._users == 0:
                self._open = self._make()
                self._open.__enter__()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._open.__exit__(None, None, None)


@contextmanager
def _highest_precision():
    matmul = torch.backends.cuda.matmul
    callers = (
        torch.get_float32_matmul_precision(),
        matmul.allow_bf16_reduced_precision_reduction,
    )
    torch.set_float32_matmul_precision("highest")
    matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(callers[0])
        matmul.allow_bf16_reduced_precision_reduction = callers[1]


@contextmanager
def _no_fast_path():
    # the fast path of attention runs no submodule, so nothing of it could be recorded
    callers = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(callers)


_MATMUL, _FAST_PATH = _Shared(_highest_precision), _Shared(_no_fast_path)


def _eager():
    # importing the compiler takes seconds, and only who has done so can have compiled anything
    loaded = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if loaded else nullcontext()


_EAGER = _Shared(_eager)
