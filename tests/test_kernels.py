"""The public functions: modules and nets, shapes, and one test for each bad input."""

import copy
import functools

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn

from sklearn_lpntk.kernels import empirical_ntk, entk_kernel, lpntk_kernel, pntk_kernel

from .nets import TRAPS
from .oracle import assert_same_kernel, oracle_kernel

X = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
y = np.arange(12) % 3


def make_module(n_in=4, n_out=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(n_in, 5), nn.Tanh(), nn.Linear(5, n_out))


def make_net(module=make_module, **options):
    options = {"criterion": nn.CrossEntropyLoss, "max_epochs": 1, "verbose": 0} | options
    return NeuralNetClassifier(module, train_split=None, **options)


def test_module_and_fitted_net_agree():
    net = make_net().fit(X, y)
    expected = lpntk_kernel(net.module_, X, y)
    np.testing.assert_array_equal(lpntk_kernel(net, X, y), expected)
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(lpntk_kernel(net, torch.from_numpy(X), y), expected)


def test_float64_data_is_cast_and_integers_are_not():
    module = make_module()
    np.testing.assert_array_equal(
        lpntk_kernel(module, X.astype(np.float64), y), lpntk_kernel(module, X, y)
    )
    embedding, tokens, _ = TRAPS["bag_of_words"]()
    labels = torch.arange(len(tokens)) % 3
    expected = oracle_kernel(embedding, tokens, labels, "lpntk")
    for dtype in (np.int32, np.uint8, np.int64):
        assert_same_kernel(lpntk_kernel(embedding, tokens.numpy().astype(dtype), labels), expected)


def test_lpntk_is_the_signed_sum_of_the_full_ntk():
    """Eq. 3, first line, with its indices put right."""
    module = make_module().double()
    full = entk_kernel(module, X)
    assert full.shape == (12, 12, 3, 3)
    s = np.full((12, 3), -1.0)
    s[np.arange(12), y] = 1
    np.testing.assert_allclose(
        lpntk_kernel(module, X, y), np.einsum("na,nmab,mb->nm", s, full, s) / 3, rtol=1e-10
    )
    np.testing.assert_allclose(pntk_kernel(module, X), full.sum(axis=(2, 3)) / 3, rtol=1e-10)
    first = empirical_ntk(module, X, kernel="pntk_first").toarray()
    np.testing.assert_allclose(first, full[:, :, 0, 0], rtol=1e-10)


def test_entk_of_two_sets():
    module = make_module().double()
    full = entk_kernel(module, X)
    np.testing.assert_allclose(entk_kernel(module, X[:5], X), full[:5], rtol=1e-12)
    np.testing.assert_allclose(full, full.transpose(1, 0, 3, 2), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_entk_of_many_logits(dtype):
    """Units that a ReLU shuts off are left out, pair by pair; the last layer's part is known."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU())
    module = module.append(nn.Linear(30, 70)).to(dtype)
    operator = empirical_ntk(module, X, kernel="entk")
    assert {type(f).__name__ for f in operator.kernel.left.factors.values()} == {"Outer", "Unit"}
    inputs = torch.from_numpy(X).to(dtype)
    expected = oracle_kernel(module, inputs, torch.from_numpy(y), "entk")
    rtol = 1e-10 if dtype == torch.float64 else 1e-5
    assert_same_kernel(operator.toarray(), expected, rtol)
    rows, cols = np.array([3, 700, 71, 3]), slice(5, 800, 13)
    np.testing.assert_array_equal(operator.block(rows, cols), operator.toarray()[rows][:, cols])
    V = np.random.default_rng(0).standard_normal((len(expected), 2))
    assert_same_kernel(operator.matmul(V), expected @ V, 10 * rtol)
    blocks = entk_kernel(module, X[:5], X)
    expected = expected.reshape(12, 70, 12, 70).transpose(0, 2, 1, 3)[:5]
    assert_same_kernel(blocks, expected, rtol)


def test_entk_where_the_last_layer_gives_logits_to_some_batches_only():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3), nn.Hardtanh(-1, 1))
    inputs = torch.from_numpy(np.concatenate([X, 30 * X])).double()  # the second half is cut off
    expected = oracle_kernel(module.double(), inputs, torch.zeros(24, dtype=int), "entk")
    operator = empirical_ntk(module, inputs, kernel="entk", batch_size=12)
    assert_same_kernel(operator.toarray(), expected)
    half = empirical_ntk(module, inputs[:12], None, inputs[12:], kernel="entk")
    assert_same_kernel(half.toarray(), expected[:36, 36:])


def test_as_many_scalars_in_every_batch():
    def kernel(logits, y):
        return logits[:, None].expand(-1, 1 + int((y == 2).any()), -1)

    labels = np.repeat([0, 2], 6)
    with pytest.raises(ValueError, match="2 scalars a sample in one batch and 1 in another"):
        empirical_ntk(make_module(), X, labels, kernel=kernel, batch_size=6)


def test_loss_gradient_diagonal_is_grand_squared():
    module = make_module().double()
    expected = []
    for i in range(12):
        loss = nn.functional.cross_entropy(
            module(torch.tensor(X[i : i + 1]).double()), torch.tensor(y[i : i + 1])
        )
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        expected.append(sum((g**2).sum().item() for g in gradients))
    found = empirical_ntk(module, X, y, kernel="loss_gradient").diag()
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_one_logit():
    net = NeuralNetBinaryClassifier(
        make_module, module__n_out=1, max_epochs=1, train_split=None, verbose=0
    ).fit(X, (y > 0).astype(np.float32))
    K = lpntk_kernel(net, X, (y > 0).astype(np.float32))
    same = np.equal.outer(y > 0, y > 0)
    plain = pntk_kernel(net, X)
    np.testing.assert_allclose(K, np.where(same, plain, -plain), rtol=1e-5)


def test_two_runs_are_bit_identical():
    module = make_module()
    np.testing.assert_array_equal(lpntk_kernel(module, X, y), lpntk_kernel(module, X, y))


class TestErrors:
    """What was given, what is allowed, what to change."""

    def test_net_that_emits_probabilities(self):
        net = make_net(criterion=nn.NLLLoss).fit(X, y)
        with pytest.raises(ValueError, match=r"criterion is NLLLoss.*CrossEntropyLoss"):
            lpntk_kernel(net, X, y)

    @pytest.mark.parametrize("criterion", [nn.BCELoss, functools.partial(nn.NLLLoss)])
    def test_other_criteria_on_probabilities(self, criterion):
        net = make_net().fit(X, y)
        net.criterion_ = criterion if not isinstance(criterion, type) else criterion()
        with pytest.raises(ValueError, match="must emit probabilities"):
            lpntk_kernel(net, X, y)

    def test_buffer_with_nan(self):
        module = nn.Sequential(nn.BatchNorm1d(4), make_module())
        module[0].running_mean[1] = torch.nan
        with pytest.raises(ValueError, match=r"buffer '0.running_mean' contains NaN"):
            lpntk_kernel(module, X, y)

    @pytest.mark.filterwarnings("ignore::UserWarning")
    def test_lazy_layer(self):
        with pytest.raises(ValueError, match="not initialised; run the network once"):
            lpntk_kernel(nn.Sequential(nn.LazyLinear(3)), X, y)

    def test_net_not_fitted(self):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            lpntk_kernel(make_net(), X, y)

    def test_not_a_network(self):
        with pytest.raises(
            TypeError,
            match="a fitted Pipeline that ends in one; got dict",
        ):
            lpntk_kernel({}, X, y)

    def test_label_outside_the_classes(self):
        with pytest.raises(ValueError, match=r"y contains \[3\], but the network has 3 logit"):
            lpntk_kernel(make_module(), X, y + 1)
        with pytest.raises(ValueError, match=r"y contains \[-1\]"):
            lpntk_kernel(make_module(), X, y - 1)

    def test_labels_that_are_no_columns(self):
        with pytest.raises(ValueError, match="LabelEncoder"):
            lpntk_kernel(make_module(), X, np.array(["a"] * 12))
        with pytest.raises(ValueError, match="must hold integers"):
            lpntk_kernel(make_module(), X, y + 0.5)
        with pytest.raises(ValueError, match=r"y must have shape \(12,\)"):
            lpntk_kernel(make_module(), X, y[:5])

    @pytest.mark.parametrize("kernel", ["lpntk", "loss_gradient"])
    def test_missing_labels(self, kernel):
        with pytest.raises(ValueError, match=r"pass y, the logit column.*kernel='pntk'"):
            empirical_ntk(make_module(), X, kernel=kernel)
        with pytest.raises(ValueError, match="pass y2"):
            empirical_ntk(make_module(), X, y, X, kernel=kernel)
        with pytest.raises(ValueError, match="y2 was given without X2"):
            empirical_ntk(make_module(), X, y, y2=y, kernel=kernel)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_not_finite(self, value):
        bad = X.copy()
        bad[3, 1] = value
        with pytest.raises(ValueError, match="X contains NaN or infinity"):
            lpntk_kernel(make_module(), bad, y)
        module = make_module()
        with torch.no_grad():
            module[2].weight[0, 0] = value
        with pytest.raises(ValueError, match=r"parameter '2.weight' contains NaN or infinity"):
            lpntk_kernel(module, X, y)

    def test_output_not_finite(self):
        class Overflow(nn.Module):
            def forward(self, x):
                return torch.exp(1e6 * x)

        with pytest.raises(ValueError, match="output contains NaN or infinity"):
            lpntk_kernel(nn.Sequential(make_module(), Overflow()), X, y)

    def test_wrong_input_shape(self):
        with pytest.raises(
            ValueError, match=r"shape \(4, 3\).*first layer is 0: Linear\(in_features=4"
        ):
            lpntk_kernel(make_module(), X[:, :3], y)

    def test_output_that_is_no_matrix_of_logits(self):
        with pytest.raises(ValueError, match=r"logits of shape \(n_samples, n_logits\)"):
            lpntk_kernel(nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (2, 3))), X, y)

    def test_nothing_to_differentiate(self):
        with pytest.raises(ValueError, match="no parameters"):
            lpntk_kernel(nn.Tanh(), X, y)
        with pytest.raises(ValueError, match="All parameters of the network are frozen"):
            lpntk_kernel(make_module().requires_grad_(False), X, y)

    def test_parameters_that_select_nothing(self):
        with pytest.raises(ValueError, match=r"No trainable parameter is named 'layer9'"):
            lpntk_kernel(make_module(), X, y, parameters="layer9")
        with pytest.raises(ValueError, match="selects none"):
            lpntk_kernel(make_module(), X, y, parameters=lambda name: False)

    def test_unknown_kernel_and_bad_cotangent(self):
        with pytest.raises(ValueError, match=r"Unknown kernel 'ntk'; use one of"):
            empirical_ntk(make_module(), X, y, kernel="ntk")
        with pytest.raises(ValueError, match=r"returned shape \(12, 2\)"):
            empirical_ntk(make_module(), X, y, kernel=lambda z, y: z[:, :2])

    def test_options(self):
        with pytest.raises(TypeError, match=r"store must be None or a path of a folder; got 3"):
            empirical_ntk(make_module(), X, y, store=3)
        with pytest.raises(ValueError, match="n_components must be"):
            empirical_ntk(make_module(), X, y, n_components=0)
        with pytest.raises(ValueError, match="batch_size must be"):
            empirical_ntk(make_module(), X, y, batch_size=0)

    def test_layers_without_a_per_sample_gradient(self):
        net = nn.Sequential(nn.Embedding(5, 3, scale_grad_by_freq=True), nn.Flatten())
        with pytest.raises(ValueError, match="scale_grad_by_freq=True"):
            lpntk_kernel(net, np.zeros((4, 1), dtype=int), [0, 0, 1, 1])

    def test_bfloat16_is_computed_in_a_copy(self):
        module = make_module().bfloat16().train()
        with pytest.warns(UserWarning, match="in a copy of it in float32"):
            found = lpntk_kernel(module, X, y)
        assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
        assert module.training
        np.testing.assert_array_equal(found, lpntk_kernel(copy.deepcopy(module).float(), X, y))

    def test_half_precision(self):
        with pytest.raises(ValueError, match=r"torch.float16.*\.float\(\)"):
            lpntk_kernel(make_module().half(), X, y)

    def test_uneven_dict(self):
        with pytest.raises(ValueError, match="different lengths"):
            lpntk_kernel(make_module(), {"a": X, "b": X[:3]}, y)
        with pytest.raises(ValueError, match="no samples"):
            lpntk_kernel(make_module(), X[:0], y[:0])
