"""Every rule x cotangent equals one-sample-at-a-time autograd in float64."""

import copy
import warnings

import pytest
import torch

from sklearn_lpntk._engine.cotangents import COTANGENTS
from sklearn_lpntk._engine.inputs import n_rows, take
from sklearn_lpntk.exceptions import AutogradRuleWarning
from sklearn_lpntk.kernels import empirical_ntk

from ..nets import TRAPS
from ..oracle import assert_same_kernel, oracle_features, oracle_kernel


def two_cotangents(logits, y):
    """A callable with R = 2."""
    return torch.stack([logits, logits.cos()], 1)


def operator(module, X, y, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AutogradRuleWarning)
        return empirical_ntk(module, X, y, **options)


def labels(X, n_logits):
    return torch.arange(n_rows(X)) % max(n_logits, 2)


@pytest.mark.parametrize("batch_size", [4, 256])
@pytest.mark.parametrize("kernel", [*COTANGENTS, two_cotangents])
@pytest.mark.parametrize("name", TRAPS)
def test_kernel_equals_the_oracle(name, kernel, batch_size):
    module, X, n_logits = TRAPS[name]()
    y = labels(X, n_logits)
    expected = oracle_kernel(copy.deepcopy(module), X, y, kernel)
    found = operator(module, X, y, kernel=kernel, batch_size=batch_size)
    assert_same_kernel(found.toarray(), expected)


@pytest.mark.parametrize("name", TRAPS)
def test_cross_kernel_equals_the_oracle(name):
    module, X, n_logits = TRAPS[name]()
    y = labels(X, n_logits)
    expected = oracle_kernel(copy.deepcopy(module), X, y, "lpntk")
    found = operator(module, take(X, slice(0, 3)), y[:3], X2=X, y2=y, batch_size=5)
    assert_same_kernel(found.toarray(), expected[:3])


@pytest.mark.parametrize("name", TRAPS)
def test_no_parameter_that_receives_a_gradient_is_missing(name):
    module, X, n_logits = TRAPS[name]()
    y = labels(X, n_logits)
    phi = oracle_features(copy.deepcopy(module), X, y, "lpntk")
    counted = 0
    start = 0
    for p in module.parameters():
        if p.requires_grad:
            counted += p.numel() * bool(phi[:, start : start + p.numel()].any())
            start += p.numel()
    features = operator(module, X, y).kernel.left
    columns = features.materialise()
    assert columns.shape[1] >= counted
    torch.testing.assert_close(columns.norm(dim=1), phi.norm(dim=1), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("prefix", ["9", ["9", "11.bias"], "0.weight"])
def test_parameter_subsets(prefix):
    module, X, n_logits = TRAPS["lenet5"]()
    y = labels(X, n_logits)
    prefixes = [prefix] if isinstance(prefix, str) else prefix
    names = [n for n, _ in module.named_parameters() if any(n.startswith(p) for p in prefixes)]
    expected = oracle_kernel(module, X, y, "lpntk", names)
    assert_same_kernel(operator(module, X, y, parameters=prefix).toarray(), expected)
    by_predicate = operator(module, X, y, parameters=lambda name: name in names)
    assert_same_kernel(by_predicate.toarray(), expected)


def test_prefix_ends_at_a_dot():
    net = torch.nn.Sequential()
    net.add_module("fc", torch.nn.Linear(3, 3))
    net.add_module("fc2", torch.nn.Linear(3, 2))
    X, y = torch.randn(4, 3), torch.arange(4) % 2
    found = empirical_ntk(net.double(), X.double(), y, parameters="fc").toarray()
    assert_same_kernel(found, oracle_kernel(net, X.double(), y, "lpntk", ["fc.weight", "fc.bias"]))
