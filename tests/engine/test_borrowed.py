"""A borrowed network comes back as it was, also where it is borrowed again inside."""

import threading

import pytest
import torch
from torch import nn

from sklearn_lpntk._engine.session import borrowed


class Counting(nn.Module):
    """Its forward pass writes to a weight, a buffer, an attribute and a training flag."""

    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(5, 3, max_norm=0.1), nn.Linear(3, 2)
        self.register_buffer("calls", torch.zeros(()))
        self.last = None

    def forward(self, x):
        self.calls += 1
        self.last = x
        return self.out(self.embed(x)).sum(1)


X = torch.tensor([[0, 1], [2, 4]])


def state_of(net):
    values = {name: t.clone() for name, t in net.state_dict().items()}
    return values, [p.requires_grad for p in net.parameters()], [m.training for m in net.modules()]


def assert_is(net, state):
    values, flags, modes = state_of(net)
    assert all(torch.equal(values[name], state[0][name]) for name in values)
    assert (flags, modes) == state[1:]
    assert net.last is None


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Counting()
    net.out.weight.requires_grad_(False)
    net.out.eval()
    return net


@pytest.mark.parametrize("fails", [False, True])
def test_once_and_inside_of_itself(net, fails):
    state = state_of(net)
    for depth in (1, 2, 3):
        try:
            _forward_at(net, depth, fails)
        except ZeroDivisionError:
            assert fails
        assert_is(net, state)


def _forward_at(net, depth, fails):
    with borrowed(net, {"embed.weight"}):
        assert not net.training
        assert [p.requires_grad for p in net.parameters()] == [True, False, False]
        if depth == 1:
            net(X)
        else:
            _forward_at(net, depth - 1, fails)
            assert [p.requires_grad for p in net.parameters()] == [True, False, False]
            assert net.last is None
        if fails:
            raise ZeroDivisionError


def test_values_are_copied_by_the_outermost(net, monkeypatch):
    copied, clone = [], torch.Tensor.clone
    monkeypatch.setattr(torch.Tensor, "clone", lambda t: copied.append(t) or clone(t))
    with borrowed(net):
        n = len(copied)
        assert n == 4
        with borrowed(net), borrowed(net.out), borrowed(nn.Sequential(net.embed, net.out)):
            pass
        assert len(copied) == n
        with borrowed(nn.Sequential(net.embed, nn.Linear(3, 2))):
            pass
        assert len(copied) == n + 2  # what is new
    with borrowed(net):
        assert len(copied) == 2 * n + 2


def test_another_thread_waits_for_a_shared_parameter(net):
    """Of modules that share a parameter, and no part."""
    other, found = nn.Linear(3, 2), []
    other.weight = net.out.weight

    def run():
        with borrowed(other, {"weight"}):
            found.append(other.weight.requires_grad)

    thread = threading.Thread(target=run)
    with borrowed(net):
        thread.start()
        thread.join(0.2)
        assert not found
        assert not net.out.weight.requires_grad
    thread.join()
    assert found == [True]
    assert not net.out.weight.requires_grad


def test_values_that_were_changed_between(net):
    """An outer context's copies serve again, unless somebody wrote to the tensor since."""
    before = net.out.weight.detach().clone()
    with borrowed(net):
        with torch.no_grad():
            net.out.weight.add_(1.0)
        net.out.bias.data = torch.full_like(net.out.bias, 7.0)
        with borrowed(net), torch.no_grad():
            net.out.weight.zero_()
            net.out.bias.zero_()
        assert torch.equal(net.out.weight, before + 1)
        assert (net.out.bias == 7).all()
    assert torch.equal(net.out.weight, before)


def test_hooks_stay_where_values_can_not_be_copied(net, monkeypatch):
    handle = net.embed.weight.register_hook(lambda g: g)

    def fails(tensor):
        raise MemoryError

    monkeypatch.setattr(torch.Tensor, "clone", fails)
    with pytest.raises(MemoryError), borrowed(net):
        pass
    assert handle.id in net.embed.weight._backward_hooks
