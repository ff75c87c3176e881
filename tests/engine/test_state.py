"""The caller's network comes back exactly as it was, also after an exception."""

import copy
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_lpntk.kernels import empirical_ntk

from ..nets import TRAPS, Wrap


class Counter(nn.Module):
    """Rewrites and replaces buffers, draws random numbers, and fails when told to."""

    def __init__(self):
        super().__init__()
        self.register_buffer("in_place", torch.zeros(3))
        self.register_buffer("replaced", torch.zeros(3))
        self.calls, self.fail_at = 0, None

    def forward(self, x):
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyError("in the middle of a batch")
        self.in_place += 1
        self.replaced = self.replaced + 1
        torch.rand(5), np.random.rand(5)
        return x


def make_net():
    net = nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), Counter(), nn.Dropout(), nn.ReLU(True), nn.Linear(6, 3)
    )
    net.train()
    net[1].eval()  # mixed flags must come back mixed
    net[0].weight.requires_grad_(False)
    net[5].weight.grad = torch.ones_like(net[5].weight)
    net[0].register_forward_hook(lambda *args: None)
    return net


def snapshot(net):
    hooks = [
        (dict(m._forward_hooks), dict(m._forward_pre_hooks), dict(m._backward_hooks))
        for m in net.modules()
    ]
    return {
        "training": [m.training for m in net.modules()],
        "requires_grad": [p.requires_grad for p in net.parameters()],
        "grad": [None if p.grad is None else p.grad.clone() for p in net.parameters()],
        "state": copy.deepcopy(dict(net.state_dict())),
        "buffers": [id(b) for b in net.buffers()],
        "hooks": hooks,
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),
        "python": random.getstate(),
        "precision": torch.get_float32_matmul_precision(),
        "fastpath": torch.backends.mha.get_fastpath_enabled(),
        "grad_mode": torch.is_grad_enabled(),
    }


def assert_unchanged(before, after):
    for key in (
        "training",
        "requires_grad",
        "buffers",
        "hooks",
        "fastpath",
        "grad_mode",
        "python",
        "precision",
    ):
        assert before[key] == after[key], key
    for a, b in zip(before["grad"], after["grad"], strict=True):
        assert (a is None and b is None) or torch.equal(a, b)
    for name, tensor in before["state"].items():
        assert torch.equal(tensor, after["state"][name]), name
    assert torch.equal(before["torch"], after["torch"])
    assert all(np.array_equal(a, b) for a, b in zip(before["numpy"], after["numpy"], strict=True))


@pytest.mark.parametrize("fail_at", [None, 1, 2, 3, 4, 5])
def test_the_network_is_given_back(fail_at):
    torch.backends.mha.set_fastpath_enabled(True)
    torch.set_float32_matmul_precision("high")
    net = make_net()
    net[2].fail_at = fail_at
    X, y = torch.randn(40, 4), torch.arange(40) % 3
    before = snapshot(net)
    if fail_at is None:
        empirical_ntk(net, X, y, batch_size=16)
    else:
        with pytest.raises((KeyError, ValueError), match="in the middle of a batch"):
            empirical_ntk(net, X, y, batch_size=16)
    assert_unchanged(before, snapshot(net))
    torch.set_float32_matmul_precision("highest")


def test_threads_leave_torchs_switch_as_it_was():
    net = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 3))
    operator = empirical_ntk(net, torch.randn(300, 20), torch.arange(300) % 3)
    torch.set_float32_matmul_precision("medium")
    with ThreadPoolExecutor(4) as pool:
        blocks = list(pool.map(lambda i: operator.block([i], slice(None)), range(200)))
    assert torch.get_float32_matmul_precision() == "medium"
    torch.set_float32_matmul_precision("highest")
    np.testing.assert_array_equal(np.concatenate(blocks), operator.toarray()[:200])


def test_weights_that_a_forward_pass_rewrites_are_restored():
    net, X, _ = TRAPS["max_norm_embedding"]()
    assert net.embed.weight.norm(dim=1).max() > 0.5
    before = snapshot(net)
    empirical_ntk(net, X, torch.arange(len(X)) % 3)
    assert_unchanged(before, snapshot(net))


@pytest.mark.filterwarnings("ignore::sklearn_lpntk.exceptions.AutogradRuleWarning")
@pytest.mark.parametrize("name", TRAPS)
def test_every_trap_is_given_back(name):
    net, X, n_logits = TRAPS[name]()
    n = len(next(iter(X.values()))) if isinstance(X, dict) else len(X)
    before = snapshot(net)
    empirical_ntk(net, X, torch.arange(n) % max(n_logits, 2), batch_size=4)
    assert_unchanged(before, snapshot(net))


@contextmanager
def reduced_precision():
    torch.set_float32_matmul_precision("medium")
    yield
    assert torch.get_float32_matmul_precision() == "medium"
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    "context",
    [
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        reduced_precision,
    ],
)
def test_the_callers_modes_do_not_matter(context):
    net = nn.Sequential(nn.Linear(40, 60), nn.Tanh(), nn.Linear(60, 3))
    X, y = torch.randn(90, 40), torch.arange(90) % 3
    expected = empirical_ntk(net, X, y).toarray()
    with context():
        found = empirical_ntk(net, X, y).toarray()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")
def test_a_compiled_or_parallel_module_is_unwrapped():
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    X, y = torch.randn(9, 4), torch.arange(9) % 3
    expected = empirical_ntk(net, X, y).toarray()
    for wrapped in (torch.compile(net), nn.DataParallel(net), nn.DataParallel(torch.compile(net))):
        np.testing.assert_array_equal(empirical_ntk(wrapped, X, y).toarray(), expected)
    inner = Wrap(lambda self, x: self.net(x), net=torch.compile(net))
    np.testing.assert_array_equal(empirical_ntk(inner, X, y).toarray(), expected)


def test_threads_leave_torchs_switches_as_they_were():
    from concurrent.futures import ThreadPoolExecutor

    from sklearn_lpntk.dynamics import predict_update

    def work(seed):
        net, X = torch.nn.Linear(4, 3), torch.randn(6, 4)
        for _ in range(10):
            predict_update(net, X, torch.arange(6) % 3, X, learning_rate=0.1)

    fast, precision = (
        torch.backends.mha.get_fastpath_enabled(),
        torch.get_float32_matmul_precision(),
    )
    stance = torch._dynamo.eval_frame._stance
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert torch.get_float32_matmul_precision() == precision
    assert torch._dynamo.eval_frame._stance == stance


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_part_is_refused_before_anything_is_touched():
    from sklearn_lpntk.kernels import lpntk_kernel

    net = torch.nn.Sequential(torch.jit.trace(torch.nn.Linear(4, 4), torch.randn(2, 4)))
    net.append(torch.nn.Linear(4, 3))
    with pytest.raises(ValueError, match="contains a ScriptModule"):
        lpntk_kernel(net, torch.randn(4, 4), [0, 1, 2, 0])
    assert all(p.requires_grad for p in net.parameters())


def test_a_kernel_does_not_import_the_compiler():
    """It takes longer to import than the first kernel to compute."""
    script = """
import sys, torch, warnings
from torch import nn
from sklearn_lpntk.kernels import lpntk_kernel
warnings.simplefilter("ignore")
layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
recurrent = nn.LSTM(8, 8, batch_first=True)
image = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
for net, X in (
    (nn.Sequential(*image), torch.rand(6, 1, 6, 6)),
    (nn.Sequential(layer, nn.Flatten(), nn.Linear(40, 3)), torch.rand(6, 5, 8)),
    (nn.Sequential(recurrent), torch.rand(6, 5, 8)),
):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net
        def forward(self, x):
            out = self.net(x)
            return out[0][:, -1] if isinstance(out, tuple) else out
    lpntk_kernel(Net(), X, torch.arange(6) % 3)
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
