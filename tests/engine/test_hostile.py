"""Networks that once gave a silently wrong kernel, or a misleading error."""

import copy
import pickle
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sklearn_lpntk.exceptions import AutogradRuleWarning
from sklearn_lpntk.kernels import empirical_ntk, lpntk_kernel

from ..nets import Wrap
from ..oracle import assert_same_kernel, oracle_kernel

pytestmark = pytest.mark.filterwarnings(
    f"ignore::{AutogradRuleWarning.__module__}.AutogradRuleWarning"
)


def labels(n, n_logits=3):
    return torch.arange(n) % n_logits


def assert_exact(net, X, y=None, kernel="lpntk", **options):
    y = labels(len(X)) if y is None else y
    expected = oracle_kernel(copy.deepcopy(net), X, y, kernel)
    assert_same_kernel(empirical_ntk(net, X, y, kernel=kernel, **options).toarray(), expected)


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64)


class TestLaterBatches:
    """What holds in the first rows of a run need not hold later."""

    @pytest.mark.parametrize("batch_size", [32, 80])
    def test_rows_are_sorted_inside(self, batch_size):
        def forward(self, x):
            order = x[:, 0].argsort(stable=True)
            return self.out(torch.relu(self.a(x[order]))[order.argsort()])

        net = Wrap(forward, a=nn.Linear(5, 6), out=nn.Linear(6, 3)).double()
        X = doubles(80, 5)
        X[:32, 0] = torch.arange(32)
        assert_exact(net, X, batch_size=batch_size)

    def test_tokens_are_selected_by_a_ragged_mask(self):
        def forward(self, x):
            mask = x[:, :, 0] != 0
            h = x.new_zeros(*x.shape[:2], 4).index_put((mask,), torch.tanh(self.a(x[mask])))
            return self.out(h.sum(1))

        net = Wrap(forward, a=nn.Linear(3, 4), out=nn.Linear(4, 3)).double()
        X = doubles(10, 2, 3)
        X[8, 0] = X[9, 1] = 0
        X = torch.cat([X, doubles(2, 2, 3)])
        X[11] = 0
        assert_exact(net, X, batch_size=4)

    @pytest.mark.parametrize("batch_size", [32, 48])
    def test_a_weight_is_used_without_its_layer(self, batch_size):
        def forward(self, x):
            h = torch.tanh(self.a(x))
            if (x[:, 0] > 0).any():
                h = h + (x[:, :1] > 0) * F.linear(h, self.extra.weight)
            return self.out(h) + 0 * self.extra(h).sum(1, keepdim=True)

        net = Wrap(forward, a=nn.Linear(4, 4), extra=nn.Linear(4, 4), out=nn.Linear(4, 3)).double()
        X = doubles(48, 4)
        X[:40, 0] = -1
        assert_exact(net, X, batch_size=batch_size)

    def test_attention_is_switched_on_later(self):
        def forward(self, x):
            h = self.a(x)
            use = x[:, 0, 0] > 0
            if use.any():
                h = h + use[:, None, None] * self.attention(h, h, h, need_weights=False)[0]
            return self.out(h.mean(1))

        net = Wrap(
            forward,
            a=nn.Linear(3, 4),
            attention=nn.MultiheadAttention(4, 2, batch_first=True),
            out=nn.Linear(4, 3),
        ).double()
        X = doubles(40, 5, 3)
        X[:33, 0, 0] = -1
        assert_exact(net, X, batch_size=8)

    def test_a_cotangent_that_is_zero_at_first(self):
        def hinge(logits, y):
            return torch.where(torch.arange(len(y))[:, None] < 32, 0.0, logits)

        net = Wrap(
            lambda self, x: self.out(self.encoder(x).mean(1)),
            encoder=nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
            out=nn.Linear(4, 3),
        ).double()
        X = doubles(40, 5, 4)
        found = empirical_ntk(net, X, labels(40), kernel=hinge, batch_size=40).toarray()
        expected = oracle_kernel(net.eval(), X, labels(40), lambda z, y: z)
        expected[:32] = expected[:, :32] = 0
        assert_same_kernel(found, expected)

    @pytest.mark.parametrize(
        "forward",
        [
            lambda self, x: self.out(torch.relu(self.a(x.transpose(0, 1))).sum(0)),
            lambda self, x: self.out(
                torch.relu(self.a(x.transpose(0, 1).reshape(-1, 4))).reshape(8, -1, 4).sum(0)
            ),
            lambda self, x: self.out(sum(torch.relu(self.a(x.flatten(1, 1)[:, ::2]).sum(1, True)))),
        ][:2],
    )
    def test_one_row_first_many_rows_then(self, forward):
        net = Wrap(forward, a=nn.Linear(4, 4), out=nn.Linear(4, 3)).double()
        X, y = doubles(8, 8, 4), labels(8)
        expected = oracle_kernel(copy.deepcopy(net), X, y, "lpntk")
        found = empirical_ntk(net, X[:1], y[:1], X2=X, y2=y).toarray()
        assert_same_kernel(found, expected[:1])


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: self.out(self.lstm(x)[0][:, -1]),  # samples taken for time steps
        lambda self, x: self.out(self.a(x[:, 0]) + 0.1 * torch.arange(len(x))[:, None]),
        lambda self, x: self.out(F.dropout(self.a(x[:, 0]), training=bool(torch.manual_seed(0)))),
    ],
)
def test_dependence_on_the_batch_that_the_first_row_does_not_show(forward):
    net = Wrap(forward, lstm=nn.LSTM(4, 4), a=nn.Linear(4, 4), out=nn.Linear(4, 3)).double()
    with pytest.raises(ValueError, match="logits differ"):
        lpntk_kernel(net, doubles(40, 6, 4), labels(40), parameters="out")


class TestRefused:
    def test_complex_and_other_kinds_of_data(self):
        net = nn.Linear(4, 3)
        for X in (
            np.ones((5, 4), dtype=complex),
            np.array([["a"] * 4] * 5),
            np.array([[None] * 4] * 5),
        ):
            with pytest.raises(ValueError, match="must hold real numbers; got an array of dtype"):
                lpntk_kernel(net, X, labels(5))
        with pytest.raises(ValueError, match="dense real tensor"):
            lpntk_kernel(net, torch.ones(5, 4).to_sparse(), labels(5))
        with pytest.raises(ValueError, match="must hold real numbers"):
            lpntk_kernel(net, None, labels(5))

    def test_gradients_that_are_not_finite(self):
        net = Wrap(
            lambda self, x: self.out((self.a(x) ** 2).sum(1, keepdim=True).sqrt()),
            a=nn.Linear(4, 4, bias=False),
            out=nn.Linear(1, 3),
        )
        X = torch.randn(80, 4)
        X[70] = 0
        with pytest.raises(ValueError, match=r"gradients of 'a\.weight' contain NaN or infinity"):
            lpntk_kernel(net, X, labels(80))

    def test_a_renormalised_weight_that_is_tied(self):
        net = Wrap(
            lambda self, x: F.linear(self.embed(x).mean(1), self.out.weight),
            embed=nn.Embedding(6, 4, max_norm=0.5),
            out=nn.Linear(4, 6, bias=False),
        )
        net.out.weight = net.embed.weight
        with pytest.raises(ValueError, match="max_norm= and a weight tied"):
            lpntk_kernel(net, torch.zeros(3, 2, dtype=torch.int64), labels(3))

    def test_output_that_does_not_depend_on_the_parameters(self):
        net = Wrap(lambda self, x: self.out(x).detach(), out=nn.Linear(4, 3))
        with pytest.raises(ValueError, match="does not depend on the selected parameters"):
            lpntk_kernel(net, torch.randn(5, 4), labels(5))

    @pytest.mark.parametrize(
        ("output", "message"),
        [
            (lambda z: {"scores": z}, "returned a dict"),
            (lambda z: None, "returned a NoneType"),
            (lambda z: z[:, :0], r"returned shape \(4, 0\)"),
            (lambda z: z.argmax(1), "floating point logits; got torch.int64"),
        ],
    )
    def test_other_outputs(self, output, message):
        net = Wrap(lambda self, x: output(self.out(x)), out=nn.Linear(4, 3))
        with pytest.raises(ValueError, match=message):
            lpntk_kernel(net, torch.randn(5, 4), labels(5))

    @pytest.mark.parametrize(
        ("cotangent", "message"),
        [
            (lambda z, y: None, "returned None"),
            (lambda z, y: z[:, None][:, :0], r"returned shape \(5, 0, 3\)"),
            (lambda z, y: z * torch.nan, "returned NaN or infinity"),
        ],
    )
    def test_cotangents(self, cotangent, message):
        with pytest.raises(ValueError, match=message):
            empirical_ntk(nn.Linear(4, 3), torch.randn(5, 4), labels(5), kernel=cotangent)

    def test_networks_of_other_kinds(self):
        X, y = torch.randn(5, 4), labels(5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            scripted = torch.jit.trace(nn.Linear(4, 3), X)
        with pytest.raises(ValueError, match="contains a ScriptModule"):
            lpntk_kernel(scripted, X, y)
        mixed = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3).double())
        with pytest.raises(ValueError, match="several dtypes"):
            lpntk_kernel(mixed, X, y)
        with torch.inference_mode():
            frozen = nn.Linear(4, 3)
        with pytest.raises(ValueError, match=r"(frozen|inference_mode)"):
            lpntk_kernel(frozen, X, y)

    @pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
    def test_reentrant_checkpointing(self):
        net = Wrap(
            lambda self, x: self.out(checkpoint(self.a, self.first(x), use_reentrant=True)),
            first=nn.Linear(4, 4),
            a=nn.Linear(4, 4),
            out=nn.Linear(4, 3),
        )
        with pytest.raises(ValueError, match="reentrant activation checkpointing"):
            lpntk_kernel(net, torch.randn(5, 4), labels(5))


class TestAccepted:
    def test_an_attention_mask_in_a_buffer(self):
        net = Wrap(
            lambda self, x: self.out(self.encoder(x, src_mask=self.mask).mean(1)),
            encoder=nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
            out=nn.Linear(4, 3),
        )
        net.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(5).double())
        assert_exact(net.double(), doubles(6, 5, 4))

    @pytest.mark.parametrize("n_logits", [1, 3])
    def test_a_squeezed_output(self, n_logits):
        net = Wrap(lambda self, x: self.out(x).squeeze(), out=nn.Linear(4, n_logits)).double()
        assert_exact(net, doubles(9, 4), labels(9, max(2, n_logits)), batch_size=4)

    def test_logits_of_another_dtype(self):
        net = Wrap(lambda self, x: self.out(x).double(), out=nn.Linear(4, 3))
        X, y = torch.randn(8, 4), labels(8)
        plain = lpntk_kernel(nn.Sequential(net.out), X, y)
        np.testing.assert_allclose(lpntk_kernel(net, X, y), plain, rtol=1e-5)

    def test_checkpointing(self):
        net = Wrap(
            lambda self, x: self.out(checkpoint(self.a, x, use_reentrant=False)),
            a=nn.Sequential(nn.Linear(4, 4), nn.Tanh()),
            out=nn.Linear(4, 3),
        ).double()
        assert_exact(net, doubles(8, 4))

    def test_a_network_that_works_in_place_on_its_input(self):
        net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)).double()
        X = doubles(8, 4)
        kept = X.clone()
        found = lpntk_kernel(net, X, labels(8))
        assert torch.equal(X, kept)
        assert_same_kernel(found, oracle_kernel(net, X.relu(), labels(8), "lpntk"))

    def test_inputs_made_under_inference_mode(self):
        net = nn.Linear(4, 3)
        with torch.inference_mode():
            X = torch.randn(8, 4)
        assert lpntk_kernel(net, X, labels(8)).shape == (8, 8)

    def test_a_cotangent_that_works_in_place(self):
        net = nn.Linear(4, 3).double()
        X = doubles(8, 4)
        found = empirical_ntk(net, X, labels(8), kernel=lambda z, y: z.mul_(2)).toarray()
        plain = empirical_ntk(net, X, labels(8), kernel=lambda z, y: (2 * z).tolist()).toarray()
        np.testing.assert_array_equal(found, plain)

    def test_labels_in_an_object_array(self):
        net, X = nn.Linear(4, 3), torch.randn(8, 4)
        y = labels(8).numpy()
        np.testing.assert_array_equal(
            lpntk_kernel(net, X, y.astype(object)), lpntk_kernel(net, X, y)
        )

    def test_a_prefix_finds_a_tied_parameter_by_any_name(self):
        net = Wrap(
            lambda self, x: F.linear(self.embed(x).mean(1), self.out.weight),
            embed=nn.Embedding(6, 4),
            out=nn.Linear(4, 6, bias=False),
        ).double()
        net.out.weight = net.embed.weight
        X, y = torch.randint(0, 6, (7, 3)), labels(7, 6)
        full = lpntk_kernel(net, X, y)
        for prefix in ("out", "embed", "out.weight"):
            np.testing.assert_array_equal(lpntk_kernel(net, X, y, parameters=prefix), full)


class TestGivenBack:
    def test_a_pending_backward_pass(self):
        net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).eval()
        X = torch.randn(8, 4)
        loss = net(X).sum()
        lpntk_kernel(net, X, labels(8))
        loss.backward()

    def test_stored_activations(self):
        def forward(self, x):
            self.last = self.a(x) * self.gain
            return self.out(self.last)

        net = Wrap(forward, a=nn.Linear(4, 4), out=nn.Linear(4, 3))
        net.gain = nn.Parameter(torch.ones(4))
        lpntk_kernel(net, torch.randn(80, 4), labels(80), batch_size=20)
        assert not hasattr(net, "last")
        net._forward = None
        pickle.dumps(net)

    def test_weights_renormalised_by_a_functional(self):
        net = Wrap(
            lambda self, x: self.out(F.embedding(x, self.table, max_norm=0.5).mean(1)),
            out=nn.Linear(4, 3),
        )
        net.table = nn.Parameter(torch.randn(6, 4))
        before = net.table.detach().clone()
        lpntk_kernel(net, torch.randint(0, 6, (7, 3)), labels(7))
        assert torch.equal(net.table, before)

    def test_pythons_random_state(self):
        net = Wrap(lambda self, x: self.out(x + 0 * random.random()), out=nn.Linear(4, 3))
        before = random.getstate()
        lpntk_kernel(net, torch.randn(5, 4), labels(5))
        assert random.getstate() == before


def test_layers_with_several_positions_are_symmetric_to_the_bit():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Flatten(), nn.Linear(320, 4))
    operator = empirical_ntk(net, torch.randn(50, 5, 64), kernel="pntk")
    K = operator.toarray()
    np.testing.assert_array_equal(K, K.T)
    np.testing.assert_array_equal(operator.block(slice(0, 50), slice(0, 50)), K)
    np.testing.assert_array_equal(operator.diag(), K.diagonal())
