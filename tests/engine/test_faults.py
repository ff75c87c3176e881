"""Rows and threads that were once silently wrong: planted in two of a thousand samples."""

import copy
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sklearn_lpntk._engine.extract import Extractor
from sklearn_lpntk.kernels import empirical_ntk, lpntk_kernel

from ..nets import Wrap
from ..oracle import assert_same_kernel, oracle_kernel
from ..random_blocks.weights import HiddenProduct

pytestmark = pytest.mark.filterwarnings("ignore::sklearn_lpntk.exceptions.AutogradRuleWarning")


def swapped(h, flag, how):
    """Rows of flagged samples, exchanged."""
    (i, j) = flag.nonzero()[:, 0].tolist()
    order = list(range(len(h)))
    order[i], order[j] = j, i
    if how == "index":
        return h[order]
    if how == "select":
        return h.index_select(0, torch.tensor(order))
    if how == "cat":
        return torch.cat([h[k : k + 1] for k in order])
    if how == "matmul":
        return torch.eye(len(h), dtype=h.dtype)[order] @ h
    out = h.clone()
    out[i], out[j] = h[j], h[i]
    return out


USES = {
    "chunk": lambda h, w: torch.cat([h @ part.T for part in w.chunk(2)], 1),
    "iteration": lambda h, w: torch.stack([(h * row).sum(1) for row in w], 1),
    "largest": lambda h, w: h * torch.max(w, 1).values,
    "svd": lambda h, w: h * torch.linalg.svd(w, full_matrices=False).S,
    "foreach": lambda h, w: h @ torch._foreach_mul([w], 2.0)[0],
    "hidden": HiddenProduct.apply,
    "inverse": lambda h, w: h @ torch.linalg.inv(w),
    "sorted": lambda h, w: h * w.sort(1).values[0],
}


@pytest.mark.parametrize("use", USES)
def test_a_use_of_a_weight_that_two_rows_of_many_make(use):
    def forward(self, x):
        h, flag = torch.tanh(self.a(x)), x[:, :1] > 5
        if flag.any():
            h = torch.where(flag, USES[use](h, self.b.weight), h)
        return self.out(h) + 0 * self.b(h).sum(1, keepdim=True)

    net = Wrap(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 4), out=nn.Linear(4, 3)).double()
    X = torch.randn(300, 4).double()
    X[[170, 231], 0] = 6
    y = torch.arange(300) % 3
    expected = oracle_kernel(copy.deepcopy(net), X, y, "lpntk")
    assert_same_kernel(empirical_ntk(net, X, y, batch_size=100).toarray(), expected, rtol=1e-9)


@pytest.mark.parametrize("how", ["index", "select", "cat", "matmul", "assignment"])
def test_two_flagged_rows_that_change_places_inside(how):
    def forward(self, x):
        flag = x[:, 0] > 5
        if flag.sum() == 2:
            h = torch.tanh(self.b(torch.tanh(self.a(swapped(x, flag, how)))))
            return self.out(swapped(h, flag, how))
        return self.out(torch.tanh(self.b(torch.tanh(self.a(x)))))

    net = Wrap(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 4), out=nn.Linear(4, 3)).double()
    X = torch.randn(300, 4).double()
    X[[130, 171], 0] = 6
    y = torch.arange(300) % 3
    expected = oracle_kernel(copy.deepcopy(net), X, y, "lpntk")
    assert_same_kernel(empirical_ntk(net, X, y, batch_size=100).toarray(), expected, rtol=1e-9)


@pytest.mark.parametrize("n", [6, 12])
def test_expert_layers_on_masked_rows(n):
    """The batch is as long as the layer is wide: no length tells where the samples are."""

    def forward(self, x):
        out, first = torch.zeros_like(x), x[:, 0] > 0
        for mask, expert in ((first, self.a), (~first, self.b)):
            out = out.index_put((mask,), torch.tanh(expert(x[mask])))
        return self.out(out)

    net = Wrap(forward, a=nn.Linear(6, 6), b=nn.Linear(6, 6), out=nn.Linear(6, 3)).double()
    X, y = torch.randn(n, 6).double(), torch.arange(n) % 3
    expected = oracle_kernel(copy.deepcopy(net), X, y, "lpntk")
    assert_same_kernel(empirical_ntk(net, X, y, batch_size=6).toarray(), expected)


def test_threads_take_turns_with_a_network():
    net = nn.Sequential(nn.Linear(6, 8), nn.PReLU(), nn.Dropout(), nn.Linear(8, 3)).train()
    X, y = torch.randn(200, 6), torch.arange(200) % 3
    expected, found = lpntk_kernel(net, X, y), [None] * 4

    def work(k):
        found[k] = lpntk_kernel(net, X, y, batch_size=20)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for K in found:
        np.testing.assert_allclose(K, expected, rtol=1e-4, atol=1e-5)
    assert all(p.requires_grad for p in net.parameters())
    assert all(m.training for m in net.modules())


def test_an_interrupt_with_its_traceback_kept_gives_the_network_back():
    class Sink:
        def rooms(self, n_samples):
            return {}

        def add(self, batch):
            raise KeyboardInterrupt

    net, X = nn.Linear(4, 3).train(), torch.randn(9, 4)
    extractor = Extractor(net, "pntk", batch_size=3)
    try:
        extractor.run(extractor.plan, X, None, Sink())
    except KeyboardInterrupt as error:
        kept = error  # as an interactive session does
    assert kept.__traceback__ is not None
    assert net.training
    assert net.weight.requires_grad


def test_autocast_inside_of_a_forward_pass():
    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            h = torch.relu(self.a(x))
        return self.out(h.float())

    net = Wrap(forward, a=nn.Linear(20, 30), out=nn.Linear(30, 3))
    X, y = torch.randn(40, 20), torch.arange(40) % 3
    expected = oracle_kernel(copy.deepcopy(net), X, y, "lpntk")
    found = lpntk_kernel(net, X, y)
    assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)


def test_vmap_of_a_layer_inside():
    net = Wrap(
        lambda self, x: self.out(torch.vmap(self.a)(x)), a=nn.Linear(4, 4), out=nn.Linear(4, 3)
    )
    net, X, y = net.double(), torch.randn(8, 4).double(), torch.arange(8) % 3
    assert_same_kernel(lpntk_kernel(net, X, y), oracle_kernel(copy.deepcopy(net), X, y, "lpntk"))


class TestRefusedOrSaid:
    def test_products_that_overflow(self):
        net = nn.Linear(4, 3)
        operator = empirical_ntk(net, torch.randn(6, 4) * 1e19, torch.arange(6) % 3)
        with pytest.raises(ValueError, match=r"overflow float32.*convert it with .double"):
            operator.toarray()

    def test_complex_vectors(self):
        operator = empirical_ntk(nn.Linear(4, 3), torch.randn(6, 4), torch.arange(6) % 3)
        with pytest.raises(ValueError, match="V must hold real numbers; got complex128"):
            operator.matmul(np.ones(6) * 1j)

    @pytest.mark.parametrize("parameters", [["weight", 3], 3])
    def test_parameters_that_are_no_names(self, parameters):
        with pytest.raises((TypeError, ValueError), match="parameters must be"):
            lpntk_kernel(nn.Linear(4, 3), torch.randn(6, 4), [0] * 6, parameters=parameters)


def test_a_norm_in_single_precision_within_a_double_net():
    """As in Llama: it rounds inside, and the rules are right all the same."""

    def forward(self, x):
        h = self.a(x)
        normed = F.layer_norm(h.float(), (8,)).double()
        return self.out(torch.tanh(self.b(normed * self.scale)))

    net = Wrap(forward, a=nn.Linear(4, 8), b=nn.Linear(8, 8), out=nn.Linear(8, 3)).double()
    net.scale = nn.Parameter(torch.ones(8).double())
    extractor = Extractor(net, "lpntk", batch_size=16)
    extractor(torch.randn(64, 4).double(), torch.arange(64) % 3)
    assert not extractor.plan.autograd
