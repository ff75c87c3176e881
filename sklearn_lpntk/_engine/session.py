"""Borrow a network: evaluation mode, frozen, and given back exactly as it was."""

import random
import threading
from contextlib import ExitStack, contextmanager

import numpy as np
import torch


@contextmanager
def borrowed(module):
    """Evaluation mode with every parameter frozen; all state is restored on exit.

    Restored, also after an exception: the modules' attributes, ``requires_grad``, the values
    of parameters and buffers, the global random states of torch, numpy and Python, and
    torch's switches.
    """
    with ExitStack() as stack:
        stack.enter_context(_torch_switches(module))
        stack.enter_context(_random_state(module))
        stack.callback(_restorer(module))
        for child in module.modules():
            child.training = False
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        yield


def _restorer(module):
    children = [(m, dict(vars(m)), dict(m._buffers)) for m in module.modules()]
    requires_grad = [(p, p.requires_grad) for p in module.parameters()]
    # a forward pass may rewrite buffers, and weights: nn.Embedding(max_norm=...) does
    state = [*module.parameters(), *module.buffers()]
    values = [(t, t._version, t.detach().clone()) for t in state if not t.is_inference()]

    def restore():
        for child, attributes, buffers in children:
            vars(child).clear()
            vars(child).update(attributes)
            child._buffers.clear()
            child._buffers.update(buffers)
        for parameter, flag in requires_grad:
            parameter.requires_grad_(flag)
        with torch.no_grad():
            for tensor, version, value in values:
                # batch normalisation writes its statistics without a new version
                if tensor._version != version or not _same(tensor, value):
                    tensor.copy_(value)

    return restore


def _same(tensor, value):
    return tensor.device.type == "meta" or torch.equal(tensor, value)


@contextmanager
def _torch_switches(module):
    device = next(module.parameters()).device
    with ExitStack() as stack:
        stack.enter_context(_FAST_PATH.set())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(full_precision(device))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        if device.type == "cuda":
            # cuDNN's recurrent backward needs training mode, and its TF32 costs digits
            recurrent = any(isinstance(m, torch.nn.RNNBase) for m in module.modules())
            flags = torch.backends.cudnn.flags(enabled=not recurrent, allow_tf32=False)
            stack.enter_context(flags)
        yield


@contextmanager
def full_precision(device):
    """No autocast, and no float32 product in fewer bits, whatever the caller has set."""
    with _MATMUL.set():
        if device.type == "meta":
            yield
        else:
            with torch.autocast(device.type, enabled=False):
                yield


class _GlobalSwitch:
    """A setting of torch for all threads: of several users the first sets it, the last restores.

    Parameters
    ----------
    read, write : callable
        Get the present state; set a state.
    wanted : state
    """

    def __init__(self, read, write, wanted):
        self._read, self._write, self._wanted = read, write, wanted
        self._lock, self._users, self._callers = threading.Lock(), 0, None

    @contextmanager
    def set(self):
        with self._lock:
            if self._users == 0:
                self._callers = self._read()
                self._write(self._wanted)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._write(self._callers)


def _matmul_precision():
    reduced = torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    return torch.get_float32_matmul_precision(), reduced


def _set_matmul_precision(state):
    torch.set_float32_matmul_precision(state[0])
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = state[1]


_MATMUL = _GlobalSwitch(_matmul_precision, _set_matmul_precision, ("highest", False))
# the fast path of attention runs no submodule, so nothing of it could be recorded
_FAST_PATH = _GlobalSwitch(
    torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled, False
)


@contextmanager
def _random_state(module):
    cuda = {p.device.index for p in module.parameters() if p.device.type == "cuda"}
    with random_state_kept(sorted(cuda)):
        yield


@contextmanager
def random_state_kept(devices):
    """The global generators of torch (also on some GPUs), numpy and Python come back."""
    state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        np.random.set_state(state[0])
        random.setstate(state[1])
