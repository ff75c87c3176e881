"""``J t`` by each way, against one backward pass a sample and logit."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sklearn_lpntk._engine.directional import DirectionalDerivative, weighted_gradient
from sklearn_lpntk._engine.inputs import n_rows
from sklearn_lpntk._engine.parameters import select_parameters
from sklearn_lpntk._engine.session import borrowed

from ..nets import TRAPS, Wrap
from ..oracle import oracle_features

# where a way fails, and another is found
UNKNOWN = {
    "_forward": {"embedding_bag", "weight_norm_and_spectral_norm"},
    "_two_reverse_passes": {"embedding_bag"},
    "_one_by_one": set(),
}


@pytest.mark.parametrize("way", ["_forward", "_two_reverse_passes", "_one_by_one"])
@pytest.mark.parametrize("name", TRAPS)
def test_every_way_is_the_jacobian_times_the_direction(name, way):
    module, X, n_logits = TRAPS[name]()
    names = select_parameters(module, None)
    module.eval()
    flags = [p.requires_grad for p in module.parameters()]
    with borrowed(module):
        parameters = {k: p for k, p in module.named_parameters() if k in names}
        # a direction as training gives it: zero for what no gradient reaches
        direction, _ = weighted_gradient(module, parameters, X, torch.randn_like)
        derivative = DirectionalDerivative(module)
        if name in UNKNOWN[way]:
            derivative(X, direction)
            assert getattr(derivative, way) not in derivative._ways
            return
        derivative._ways = [getattr(derivative, way)]
        logits, found = derivative(X, direction)
    assert [p.requires_grad for p in module.parameters()] == flags
    labels = torch.zeros(n_rows(X), dtype=torch.int64)
    phi = oracle_features(module, X, labels, "entk", names)
    flat = torch.cat([direction[k].flatten() for k in parameters])
    expected = (phi @ flat).reshape(-1, n_logits)
    assert logits.shape == found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10 * expected.abs().max())


def test_a_shared_module_without_a_rule_keeps_its_parameters():
    """functional_call would leave the substituted tensors in it."""
    module, X, _ = TRAPS["shared_module_without_a_rule"]()
    before = module[0].weight
    with borrowed(module):
        parameters = dict(module.named_parameters())
        direction = {k: torch.ones_like(p) for k, p in parameters.items()}
        DirectionalDerivative(module)(X, direction)
    assert module[0].weight is before
    assert module[2].weight is before


class SilentTanh(torch.autograd.Function):
    """As an extension may be: no forward mode, and a backward pass that leaves no graph."""

    @staticmethod
    def forward(ctx, x):
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return (g * (1 - y**2)).detach()


def _weights_in_a_list():
    net = Wrap(
        lambda self, x: self.b(torch.tanh(F.linear(x, *self.ws))),
        a=nn.Linear(5, 6),
        b=nn.Linear(6, 3),
    )
    net.ws = [net.a.weight, net.a.bias]
    return net


def _straight_through():
    def forward(self, x):
        h = self.a(x)
        with torch.no_grad():
            q = torch.sign(h) - h
        return self.b(torch.tanh(h) + h + q)

    return Wrap(forward, a=nn.Linear(5, 6), b=nn.Linear(6, 3))


def _attribute_of_a_parameter():
    net = Wrap(
        lambda self, x: self.b(torch.tanh(self.a(x) * self.a.weight.gain)),
        **{"a": nn.Linear(5, 6), "b": nn.Linear(6, 3)},
    )
    net.a.weight.gain = 2.0
    return net


def _silent_extension():
    return Wrap(
        lambda self, x: self.b(SilentTanh.apply(self.a(x))), a=nn.Linear(5, 6), b=nn.Linear(6, 3)
    )


def _hooked():
    net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    net[0].weight.register_hook(lambda g: 2 * g)
    return net


@pytest.mark.parametrize(
    "make",
    [
        _weights_in_a_list,
        _straight_through,
        _attribute_of_a_parameter,
        _hooked,
        _silent_extension,
    ],
)
def test_a_way_that_is_wrong_is_found_out(make):
    """None of these fails in the first way; all are what autograd says in the end."""
    net, X = make().double(), torch.randn(7, 5).double()
    hooks = [len(p._backward_hooks or ()) for p in net.parameters()]
    with borrowed(net):
        parameters = dict(net.named_parameters())
        direction = {k: torch.randn_like(p) for k, p in parameters.items()}
        _, found = DirectionalDerivative(net)(X, direction)
    assert [len(p._backward_hooks or ()) for p in net.parameters()] == hooks
    for p in net.parameters():
        p._backward_hooks = None
    phi = oracle_features(net, X, torch.zeros(7, dtype=torch.int64), "entk")
    expected = (phi @ torch.cat([t.flatten() for t in direction.values()])).reshape(-1, 3)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.filterwarnings("ignore:None of the inputs:UserWarning")
def test_reentrant_checkpointing_is_explained():
    def forward(self, x):
        scaled = checkpoint(lambda z, d: self.a(z) * d, x, self.d, use_reentrant=True)
        return self.b(scaled)

    net = Wrap(forward, a=nn.Linear(5, 6), b=nn.Linear(6, 3))
    net.d = nn.Parameter(torch.ones(1))
    X = torch.randn(7, 5)
    with borrowed(net), pytest.raises(ValueError, match="reentrant activation checkpointing"):
        DirectionalDerivative(net)(X, {"a.weight": torch.randn(6, 5), "d": torch.ones(1)})
