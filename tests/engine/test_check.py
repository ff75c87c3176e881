"""The self-check: what it catches, what follows, and how often it runs."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_lpntk._engine import autograd
from sklearn_lpntk._engine import trace as trace_module
from sklearn_lpntk._engine.check import SelfCheck
from sklearn_lpntk._engine.extract import PROVED, Extractor
from sklearn_lpntk._engine.inputs import n_rows
from sklearn_lpntk._engine.rules.linear import LinearUse
from sklearn_lpntk._engine.rules.terms import Positions
from sklearn_lpntk.exceptions import AutogradRuleWarning, ProbabilityOutputWarning
from sklearn_lpntk.kernels import empirical_ntk

from ..nets import SLOW, TRAPS, Wrap
from ..oracle import assert_same_kernel, oracle_kernel


def run(name, **options):
    """The names that took the autograd rule, and the factors."""
    module, X, n_logits = TRAPS[name]()
    extractor = Extractor(module, "lpntk", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AutogradRuleWarning)
        features = extractor(X, torch.arange(n_rows(X)) % max(n_logits, 2))
    return extractor.plan, features.factors


@pytest.mark.parametrize("name", TRAPS)
def test_exactly_these_parameters_take_the_autograd_rule(name):
    """A rule that is broken falls back to autograd: then it is exact, and missed here."""
    plan, _ = run(name)
    assert plan.autograd == SLOW[name]
    assert not plan.refuted  # no guess was needed


def test_one_warning_names_the_parameters():
    module, X, _ = TRAPS["opaque"]()
    with pytest.warns(AutogradRuleWarning, match=r"\['gain'\]") as record:
        empirical_ntk(module, X, torch.arange(len(X)) % 3, batch_size=2)
    assert len(record) == 1


def broken(change):
    """A rule for linear layers whose term is changed."""

    def term(self, call, role, n, with_bias=False):
        found = real(self, call, role, n, with_bias)
        return change(found) if isinstance(found, Positions) else found

    real = LinearUse.term
    return term


WRONG = {
    "scaled": lambda term: Positions(1.001 * term.a, term.g),
    # a sum over the samples would not notice these
    "swapped": lambda term: Positions(term.a.flip(0), term.g.flip(0)),
    "averaged": lambda term: Positions(
        term.a.mean(0, keepdim=True).expand_as(term.a),
        term.g.mean(0, keepdim=True).expand_as(term.g),
    ),
    "misaligned": lambda term: Positions(term.a, term.g.flip(0)),
}


@pytest.mark.parametrize("how", WRONG)
def test_a_broken_rule_is_found_and_replaced(how, monkeypatch):
    monkeypatch.setattr(LinearUse, "term", broken(WRONG[how]))
    net = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Tanh(), nn.Linear(5, 3, bias=False))
    X, y = torch.randn(8, 4).double(), torch.arange(8) % 3
    with pytest.warns(AutogradRuleWarning, match="0.weight"):
        found = empirical_ntk(net.double(), X, y).toarray()
    assert_same_kernel(found, oracle_kernel(net, X, y, "lpntk"))


def test_a_wrong_vmap_is_found_and_looped(monkeypatch):
    def wrong(module, names, x, v):
        return {n: 2 * g for n, g in real(module, names, x, v).items()}

    real = autograd.batched_gradients
    monkeypatch.setattr(autograd, "batched_gradients", wrong)
    monkeypatch.setattr(trace_module, "is_looped_faster", lambda *args: False)
    assert run("opaque")[0].loop


@pytest.mark.parametrize("batch_size", [40, 300, 7])
def test_every_path_is_checked_once_with_all_its_rows(batch_size, monkeypatch):
    rows = []
    real = SelfCheck._wrong

    def counted(self, trace, weights, norms):
        assert (weights != 0).all()
        rows.append(len(weights))
        return real(self, trace, weights, norms)

    monkeypatch.setattr(SelfCheck, "_wrong", counted)
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    X, y = torch.randn(600, 4), torch.arange(600) % 3
    Extractor(net, "lpntk", batch_size=batch_size)(X, y)
    assert rows == [batch_size]
    rows.clear()
    Extractor(net, "lpntk")(X, y)
    assert rows == [PROVED]  # of batches that nobody asked for
    # an operation that may mix samples: every batch by numbers
    net = Wrap(lambda self, x: self.out(x[torch.arange(len(x)).flip(0)].flip(0)), out=net)
    rows.clear()
    Extractor(net, "lpntk", batch_size=batch_size)(X, y)
    assert sum(rows) >= 600


def test_rows_of_very_different_size_are_checked_by_themselves(monkeypatch):
    """Rows that are larger by 1e4 would hide what is wrong in the others."""

    def forgets(self, call, role, n, with_bias=False):
        found = real(self, call, role, n, with_bias)
        if isinstance(found, Positions) and n == 16:
            small = found.a.norm(dim=(1, 2)) < 100
            found.a = torch.where(small[:, None, None], found.a.roll(1, 2), found.a)
        return found

    real = LinearUse.term
    monkeypatch.setattr(LinearUse, "term", forgets)
    net = nn.Linear(4, 3)
    X, y = torch.randn(40, 4), torch.arange(40) % 3
    X[::2] *= 1e4
    expected = oracle_kernel(net, X, y, "lpntk")
    with pytest.warns(AutogradRuleWarning):
        found = empirical_ntk(net, X, y, batch_size=16).toarray()
    cosines = [k / np.sqrt(np.outer(k.diagonal(), k.diagonal())) for k in (found, expected)]
    np.testing.assert_allclose(*cosines, atol=1e-5)


def test_a_network_that_branches():
    def forward(self, x):
        h = torch.tanh(self.a(x))
        if x[0, 0] > 0:
            h = torch.tanh(self.b(h))
        return self.out(h)

    net = Wrap(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 4), out=nn.Linear(4, 3)).double()
    X = torch.randn(20, 4).double()
    X = X[X[:, 0].argsort()]  # the branch is taken from some batch on
    y = torch.arange(20) % 3
    extractor = Extractor(net, "lpntk", batch_size=1)
    features = extractor(X, y)
    assert_same_kernel(features.gram(features).numpy(), oracle_kernel(net, X, y, "lpntk"))


def test_what_is_written_out_and_what_stays_factored():
    forms = {name: {k: type(f).__name__ for k, f in run(name)[1].items()} for name in TRAPS}
    assert [*forms["lenet5"].values()] == ["Dense", "Dense", "Outer", "Outer", "Outer"]
    assert forms["large_vocabulary"] == {"embed.weight": "Lookup", "out.weight": "Outer"}
    assert forms["language_model"] == {"embed.weight": "Tied", "mix.weight": "Outer"}
    assert forms["bag_of_words"]["embed.weight"] == "Dense"


def test_numbers_stored_for_a_sample_of_lenet5():
    """3,393 instead of 61,706: the documentation quotes it."""
    module, X, _ = TRAPS["lenet5"]()
    features = Extractor(module, "lpntk")(X, torch.arange(len(X)))
    assert features.sample_bytes == 3393 * 8
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
    extractor = Extractor(net, "lpntk", batch_size=64)
    extractor(X, torch.arange(64) % 3)
    assert extractor.plan.autograd == set()
