"""The self-check: what it catches, what follows, and how often it runs."""

import warnings

import pytest
import torch
from torch import nn

from sklearn_lpntk._engine import trace as trace_module
from sklearn_lpntk._engine.check import SelfCheck
from sklearn_lpntk._engine.cotangents import find_cotangent
from sklearn_lpntk._engine.extract import Extractor
from sklearn_lpntk._engine.inputs import n_rows
from sklearn_lpntk._engine.rules import LinearRule
from sklearn_lpntk.exceptions import AutogradRuleWarning, ProbabilityOutputWarning
from sklearn_lpntk.kernels import empirical_ntk

from ..nets import SLOW, TRAPS, Wrap
from ..oracle import assert_same_kernel, oracle_kernel


def run(name, **options):
    module, X, n_logits = TRAPS[name]()
    extractor = Extractor(module, find_cotangent("lpntk"), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AutogradRuleWarning)
        extractor(X, torch.arange(n_rows(X)) % max(n_logits, 2))
    return extractor.plan


@pytest.mark.parametrize("name", TRAPS)
def test_exactly_these_parameters_take_the_autograd_rule(name):
    """A rule that is broken falls back to autograd: then it is exact, and missed here."""
    assert run(name).slow == SLOW[name]


def test_one_warning_names_the_parameters():
    module, X, _ = TRAPS["bare_parameter"]()
    with pytest.warns(AutogradRuleWarning, match=r"\['gain'\]") as record:
        empirical_ntk(module, X, torch.arange(len(X)) % 3, batch_size=2)
    assert len(record) == 1


def test_a_broken_rule_is_found_and_replaced(monkeypatch):
    monkeypatch.setattr(LinearRule, "activations", lambda self, x: 1.001 * x.unsqueeze(1))
    net = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Tanh(), nn.Linear(5, 3, bias=False))
    X, y = torch.randn(8, 4).double(), torch.arange(8) % 3
    with pytest.warns(AutogradRuleWarning, match="0.weight"):
        found = empirical_ntk(net.double(), X, y).toarray()
    assert_same_kernel(found, oracle_kernel(net, X, y, "lpntk"))


def test_a_rule_that_swaps_samples_is_found(monkeypatch):
    """A plain sum over the samples would not notice."""
    monkeypatch.setattr(LinearRule, "cotangents", lambda self, g, x: g.flip(0).unsqueeze(1))
    net = nn.Sequential(nn.Linear(4, 3, bias=False)).double()
    X, y = torch.randn(8, 4).double(), torch.arange(8) % 3
    with pytest.warns(AutogradRuleWarning):
        found = empirical_ntk(net, X, y).toarray()
    assert_same_kernel(found, oracle_kernel(net, X, y, "lpntk"))


def test_a_wrong_vmap_is_found_and_looped(monkeypatch):
    def wrong(module, names, x, v):
        return {n: 2 * g for n, g in real(module, names, x, v).items()}

    real = trace_module.batched_gradients
    monkeypatch.setattr(trace_module, "batched_gradients", wrong)
    assert run("bare_parameter").loop


def test_every_batch_is_checked_the_first_thoroughly(monkeypatch):
    checked = []
    real = SelfCheck._wrong

    def counted(self, x, trace, rows, tolerances):
        checked.append(len(rows))
        return real(self, x, trace, rows, tolerances)

    monkeypatch.setattr(SelfCheck, "_wrong", counted)
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    for batch_size, rows in ((40, [32, 2, 2]), (200, [32, 3]), (300, [32, 4])):
        checked.clear()
        extractor = Extractor(net, find_cotangent("lpntk"), batch_size=batch_size)
        n = batch_size * len(rows)
        extractor(torch.randn(n, 4), torch.arange(n) % 3)
        assert checked == rows


def test_the_check_runs_again_where_the_network_branches():
    def forward(self, x):
        h = torch.tanh(self.a(x))
        if x[0, 0] > 0:
            h = torch.tanh(self.b(h))
        return self.out(h)

    net = Wrap(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 4), out=nn.Linear(4, 3)).double()
    X = torch.randn(20, 4).double()
    X = X[X[:, 0].argsort()]  # the branch is taken from some batch on
    y = torch.arange(20) % 3
    extractor = Extractor(net, find_cotangent("lpntk"), batch_size=1)
    features = extractor(X, y)
    assert len(extractor.plan.verified) == 2
    assert_same_kernel(features.gram(features).numpy(), oracle_kernel(net, X, y, "lpntk"))


def test_what_is_written_out_and_what_stays_factored():
    plan = run("lenet5")
    assert {key: dense for key, dense in plan.dense.items() if dense} == {"0": True, "3": True}
    assert run("large_vocabulary").dense == {"embed": False, "out": False}
    assert run("bag_of_words").dense["embed"]


def test_numbers_stored_for_a_sample_of_lenet5():
    """3,393 instead of 61,706: the documentation quotes it."""
    module, X, _ = TRAPS["lenet5"]()
    features = Extractor(module, find_cotangent("lpntk"))(X, torch.arange(len(X)))
    assert features.sample_bytes == (3393 + 10) * 8  # with the cotangents
    assert sum(features.columns.values()) == 61_706


def test_batch_dependence_is_refused():
    X, y = torch.randn(8, 4), torch.arange(8) % 3
    centred = Wrap(lambda self, x: self.out(x - x.mean(0)), out=nn.Linear(4, 3))
    with pytest.raises(ValueError, match="depend on the rest of the batch"):
        empirical_ntk(centred, X, y)
    normed = nn.Sequential(
        nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)
    )
    with pytest.raises(ValueError, match="BatchNorm without running statistics"):
        empirical_ntk(normed, X, y)


def test_random_logits_are_refused():
    noisy = Wrap(lambda self, x: self.out(nn.functional.dropout(x)), out=nn.Linear(4, 3))
    with pytest.raises(ValueError, match="random numbers"):
        empirical_ntk(noisy, torch.randn(8, 4), torch.arange(8) % 3)


def test_probabilities_are_warned_of():
    net = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))
    X, y = torch.randn(8, 4), torch.arange(8) % 3
    with pytest.warns(ProbabilityOutputWarning, match="looks like probabilities"):
        empirical_ntk(net, X, y)


def test_rounding_at_a_kink_is_no_error():
    """A batch of another size may round an activation to the other side of a ReLU's kink."""
    torch.manual_seed(0)

    def forward(self, x):
        rounding = 1e-6 if len(x) == 64 else -1e-6
        return self.out(torch.relu(self.b(torch.relu(self.a(x) + rounding))))

    net = Wrap(
        forward, a=nn.Linear(4, 400, bias=False), b=nn.Linear(400, 400), out=nn.Linear(400, 3)
    )
    X = torch.randn(64, 4)
    X[::2, 0] = 0
    with torch.no_grad():
        net.a.weight[:3, 1:] = 0  # three units at zero for half of the samples
    extractor = Extractor(net, find_cotangent("lpntk"), batch_size=64)
    extractor(X, torch.arange(64) % 3)
    assert extractor.plan.slow == extractor.plan.autograd == set()
