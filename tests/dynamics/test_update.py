"""predict_update against steps that are really taken, and its two methods against each other."""

import copy

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn import functional as F

from sklearn_lpntk.dynamics import predict_update

from ..nets import TRAPS, Wrap

pytestmark = pytest.mark.filterwarnings("ignore::sklearn_lpntk.exceptions.AutogradRuleWarning")
FIELDS = ("delta_proba", "delta_log_proba", "delta_logits")


def rows_of(X, rows):
    return {k: v[rows] for k, v in X.items()} if isinstance(X, dict) else X[rows]


def length(X):
    return len(next(iter(X.values()))) if isinstance(X, dict) else len(X)


def smooth_net():
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
    return net.double(), torch.randn(12, 5).double(), torch.arange(12) % 4


def stepped(net, X, y, learning_rate):
    """A copy of the net after one real step."""
    net = copy.deepcopy(net).eval()
    optimizer = torch.optim.SGD(net.parameters(), lr=learning_rate)
    F.cross_entropy(net(X), y).backward()
    optimizer.step()
    return net


def probabilities(net, X):
    with torch.no_grad():
        return torch.softmax(net(X), 1).numpy()


@pytest.mark.parametrize("name", TRAPS)
def test_the_two_methods_agree(name):
    module, X, n_logits = TRAPS[name]()
    y = np.arange(length(X)) % max(n_logits, 2)
    step = rows_of(X, slice(0, 3)), y[:3], X
    jvp = predict_update(module, *step, learning_rate=0.1)
    ntk = predict_update(module, *step, learning_rate=0.1, method="ntk")
    for field in FIELDS:
        found, expected = getattr(jvp, field), getattr(ntk, field)
        assert found.shape == (length(X), n_logits)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())
    # Eq. 1, from the factors as they are returned
    literal = np.mean([ntk.A @ (ntk.K[:, u] @ ntk.G[u])[:, :, None] for u in range(3)], axis=0)
    np.testing.assert_allclose(0.1 * literal[:, :, 0], ntk.delta_proba, rtol=1e-9, atol=1e-15)
    assert jvp.A is jvp.K is jvp.G is None


def test_the_factors_are_those_of_the_paper():
    net, X, y = smooth_net()
    step = predict_update(net, X[:2], y[:2], X[2:5], learning_rate=0.3, method="ntk")
    q = probabilities(net, X)
    for o in range(3):
        np.testing.assert_allclose(step.A[o], np.diag(q[2 + o]) - np.outer(q[2 + o], q[2 + o]))
    np.testing.assert_allclose(step.G, np.eye(4)[y[:2]] - q[:2])
    parameters = list(net.parameters())
    for o, u in np.ndindex(3, 2):
        jacobians = [
            torch.stack(
                [
                    torch.cat([g.flatten() for g in torch.autograd.grad(net(X[i])[k], parameters)])
                    for k in range(4)
                ]
            )
            for i in (2 + o, u)
        ]
        np.testing.assert_allclose(step.K[o, u], (jacobians[0] @ jacobians[1].T).numpy())


def test_the_remainder_shrinks_as_the_square_of_the_learning_rate():
    net, X, y = smooth_net()
    rates = np.logspace(-4, -1, 7)
    for field in FIELDS:
        errors = []
        for rate in rates:
            after = stepped(net, X[:6], y[:6], rate)
            with torch.no_grad():
                z, z_after = net(X), after(X)
            real = {
                "delta_logits": z_after - z,
                "delta_proba": z_after.softmax(1) - z.softmax(1),
                "delta_log_proba": z_after.log_softmax(1) - z.log_softmax(1),
            }[field]
            step = predict_update(net, X[:6], y[:6], X, learning_rate=rate)
            errors.append(np.abs(getattr(step, field) - real.numpy()).max())
        slopes = np.diff(np.log(errors)) / np.diff(np.log(rates))
        assert np.abs(slopes - 2).max() < 0.1


def test_lenet_is_within_one_percent_of_a_real_step():
    net, X, _ = TRAPS["lenet5"]()
    X, y = torch.randn(64, 1, 28, 28).double(), torch.arange(64) % 10
    step = predict_update(net, X[:32], y[:32], X, learning_rate=1e-4)
    real = probabilities(stepped(net, X[:32], y[:32], 1e-4), X) - probabilities(net, X)
    assert np.linalg.norm(step.delta_proba - real) < 0.01 * np.linalg.norm(real)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_the_change_of_any_optimiser(optimizer):
    net, X, y = smooth_net()
    make = {
        "momentum": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, nesterov=True),
        "adam": lambda p: torch.optim.Adam(p, lr=1e-4, weight_decay=0.01),
    }[optimizer]
    after = copy.deepcopy(net)
    trained = make(after.parameters())
    for k in range(4):
        trained.zero_grad()
        F.cross_entropy(after(X[k : k + 6]), y[k : k + 6]).backward()
        before = copy.deepcopy(after)
        trained.step()
    change = {
        name: (p - q).detach()
        for (name, p), q in zip(after.named_parameters(), before.parameters(), strict=True)
    }
    step = predict_update(before, None, None, X, parameter_change=change)
    real = probabilities(after, X) - probabilities(before, X)
    np.testing.assert_allclose(step.delta_proba, real, atol=0.02 * np.abs(real).max())
    # arrays, and parameters that stay
    first = {"0.weight": change["0.weight"].numpy()}
    part = predict_update(before, None, None, X, parameter_change=first)
    assert 0 < np.abs(part.delta_logits).max() < np.abs(step.delta_logits).max() * 2
    plain = {name: -0.1 * p.grad for name, p in _with_gradient(net, X, y).items()}
    by_change = predict_update(net, None, None, X, parameter_change=plain)
    by_step = predict_update(net, X, y, X, learning_rate=0.1)
    np.testing.assert_allclose(by_change.delta_logits, by_step.delta_logits, rtol=1e-10, atol=1e-14)


def _with_gradient(net, X, y):
    net = copy.deepcopy(net)
    F.cross_entropy(net(X), y).backward()
    return dict(net.named_parameters())


def test_a_tied_parameter_is_known_by_any_of_its_names():
    net, X, _ = TRAPS["tied_weights"]()
    change = torch.randn(6, 5).double()
    names = "embed.weight", "out.weight"
    found = [predict_update(net, None, None, X, parameter_change={n: change}) for n in names]
    np.testing.assert_array_equal(found[0].delta_logits, found[1].delta_logits)
    assert np.abs(found[0].delta_logits).max() > 0


def test_names_of_wrapped_nets():
    net, X, _ = smooth_net()
    change = torch.ones(8)
    plain = predict_update(net, None, None, X, parameter_change={"0.bias": change})
    for prefix in ("_orig_mod.", "module.", "_orig_mod.module."):
        found = predict_update(net, None, None, X, parameter_change={f"{prefix}0.bias": change})
        np.testing.assert_array_equal(found.delta_logits, plain.delta_logits)


def test_sequences_of_another_length():
    net, X, _ = TRAPS["bag_of_words"]()
    longer = torch.cat([X, X], 1)
    step = predict_update(net, X, np.arange(8) % 3, longer, learning_rate=0.1)
    again = predict_update(net, X, np.arange(8) % 3, longer, learning_rate=0.1, method="ntk")
    np.testing.assert_allclose(step.delta_proba, again.delta_proba, rtol=1e-9, atol=1e-14)


def test_fused_attention_has_a_derivative():
    net = Wrap(
        lambda self, x: self.out(
            F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x)).mean(1)
        ),
        **{name: nn.Linear(4, 8) for name in "qkv"},
        out=nn.Linear(8, 3),
    ).double()
    X, y = torch.randn(6, 5, 4).double(), torch.arange(6) % 3
    jvp = predict_update(net, X[:3], y[:3], X, learning_rate=0.1)
    ntk = predict_update(net, X[:3], y[:3], X, learning_rate=0.1, method="ntk")
    np.testing.assert_allclose(jvp.delta_proba, ntk.delta_proba, rtol=1e-10, atol=1e-14)


def test_many_samples_go_in_batches():
    net, X, y = smooth_net()
    many, labels = X.repeat(60, 1), y.repeat(60)
    once = predict_update(net, X, y, X, learning_rate=0.1)
    often = predict_update(net, many, labels, many, learning_rate=0.1)
    np.testing.assert_allclose(often.delta_proba, np.tile(once.delta_proba, (60, 1)), rtol=1e-10)


def test_probabilities_stay_probabilities():
    net, X, y = smooth_net()
    step = predict_update(net, X, y, X, learning_rate=0.1)
    np.testing.assert_allclose(step.delta_proba.sum(1), 0, atol=1e-15)
    np.testing.assert_allclose(
        step.delta_log_proba * torch.softmax(net(X), 1).detach().numpy(), step.delta_proba
    )


def test_a_skorch_net_comes_back_as_it_was():
    X = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    y = np.arange(20) % 4
    module = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 4))
    net = NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, max_epochs=2, train_split=None, verbose=0
    ).fit(X, y)
    net.module_.train()
    before = copy.deepcopy(net.module_.state_dict())
    gradients = [p.grad.clone() for p in net.module_.parameters()]
    first = predict_update(net, X[:4], y[:4], X, learning_rate=0.1)
    second = predict_update(net, X[:4], y[:4], X, learning_rate=0.1)
    np.testing.assert_array_equal(first.delta_proba, second.delta_proba)  # no dropout
    assert first.delta_proba.dtype == np.float32
    assert all(child.training for child in net.module_.modules())
    assert all(torch.equal(value, before[key]) for key, value in net.module_.state_dict().items())
    for p, gradient in zip(net.module_.parameters(), gradients, strict=True):
        assert torch.equal(p.grad, gradient)


class TestErrors:
    def setup_method(self):
        torch.manual_seed(0)
        self.net, self.X, self.y = smooth_net()

    def refused(self, match, *args, error=ValueError, **options):
        with pytest.raises(error, match=match):
            predict_update(self.net, *args, **options)

    @pytest.mark.parametrize("rate", [0, -0.1, np.nan, np.inf, "0.1", None, True])
    def test_learning_rate(self, rate):
        self.refused("learning_rate must be", self.X, self.y, self.X, learning_rate=rate)

    def test_probes_of_another_shape(self):
        self.refused(
            r"X_probe has samples of shape \(4,\)", self.X, self.y, self.X[:, :4], learning_rate=1
        )

    def test_probes_that_do_not_fit_the_network(self):
        change = {"0.bias": torch.ones(8)}
        self.refused(
            "X_probe: The network failed", None, None, self.X[:, :4], parameter_change=change
        )

    def test_labels(self):
        y = self.y.clone()
        y[0] = 4
        self.refused("y contains .4.", self.X, y, self.X, learning_rate=1)
        self.refused("y contains .4.", self.X, y, self.X, learning_rate=1, method="ntk")
        self.refused("y_update must have shape", self.X, y[:3], self.X, learning_rate=1)

    def test_empty(self):
        self.refused("X_probe has no samples", self.X, self.y, self.X[:0], learning_rate=1)
        self.refused("X_update has no samples", self.X[:0], self.y[:0], self.X, learning_rate=1)

    def test_nothing_to_predict(self):
        self.refused("X_update is needed", None, None, self.X, learning_rate=1)

    def test_both_a_step_and_a_change(self):
        change = {"0.bias": torch.ones(8)}
        self.refused(
            "takes the place", self.X, self.y, self.X, learning_rate=1, parameter_change=change
        )
        self.refused("method='jvp'", None, None, self.X, method="ntk", parameter_change=change)

    def test_changes(self):
        for change, match in (
            ({"9.bias": torch.ones(8)}, "names .'9.bias'.*no parameters"),
            ({"0.bias": torch.ones(7)}, r"of shape \(8,\); got shape \(7,\)"),
            ({"0.bias": torch.full((8,), np.nan)}, "must be finite"),
            ({}, "must be a dict"),
            ([torch.ones(8)], "must be a dict"),
            ({"0.bias": "a"}, "a tensor or a numeric array"),
        ):
            self.refused(match, None, None, self.X, parameter_change=change)

    def test_method(self):
        self.refused("method must be", self.X, self.y, self.X, learning_rate=1, method="exact")

    def test_nets(self):
        from sklearn.exceptions import NotFittedError

        net = NeuralNetClassifier(self.net, criterion=nn.CrossEntropyLoss)
        with pytest.raises(NotFittedError, match="not fitted"):
            predict_update(net, self.X, self.y, self.X, learning_rate=1)
        with pytest.raises(TypeError, match=r"Expected a torch\.nn\.Module"):
            predict_update("net", self.X, self.y, self.X, learning_rate=1)
