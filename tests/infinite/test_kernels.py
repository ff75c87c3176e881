"""The kernels, against values by quadrature and loops, and against wide networks."""

import json
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn import config_context
from sklearn.base import clone
from sklearn.decomposition import KernelPCA
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from sklearn.kernel_ridge import KernelRidge
from sklearn.svm import SVC
from torch import nn
from torch.func import functional_call, jacrev, vmap

from sklearn_lpntk.infinite import (
    InfiniteWidthConvNTK,
    InfiniteWidthNTK,
    TunableNTK,
    _kernels,
    infinite_ntk_kernel,
)

from . import reference

REFERENCE = json.loads(reference.PATH.read_text())
X = reference.samples()


def of_reference(key):
    if len(key) == 2:
        return InfiniteWidthNTK(key[1], key[0], **reference.SETTINGS), REFERENCE["pairs"]
    activation, depth, stride, readout = key
    kernel = InfiniteWidthConvNTK(
        depth,
        activation,
        image_shape=reference.IMAGE_SHAPE,
        stride=stride,
        readout=readout,
        **reference.SETTINGS,
    )
    return kernel, REFERENCE["few"]


@pytest.mark.parametrize("key", [*reference.DENSE, *reference.CONV], ids=str)
@pytest.mark.parametrize("way", ["symmetric", "cross", "small tiles"])
def test_values_by_quadrature(key, way):
    kernel, pairs = of_reference(key)
    ntk, nngp = np.transpose(REFERENCE["values"][json.dumps(key)])
    rows, cols = np.transpose(pairs)
    if way == "small tiles":
        kernel = clone(kernel).set_params(block_size=3)
    for kind, wanted in (("ntk", ntk), ("nngp", nngp)):
        kernel = clone(kernel).set_params(kind=kind)
        K = kernel(X, X.copy()) if way == "cross" else kernel(X)
        assert_allclose(K[rows, cols], wanted, rtol=1e-6)
        assert_allclose(K[cols, rows], wanted, rtol=1e-6)


KERNELS = {
    "relu": InfiniteWidthNTK(3),
    "erf": InfiniteWidthNTK(3, "erf", bias_std=0.3),
    "nngp": InfiniteWidthNTK(1, kind="nngp"),
    "flatten": InfiniteWidthConvNTK(2, image_shape=(2, 4, 3)),
    "average": InfiniteWidthConvNTK(2, image_shape=(2, 4, 3), readout="average", stride=2),
    "large windows": InfiniteWidthConvNTK(1, image_shape=(2, 4, 3), kernel_size=5, bias_std=0.1),
}


@pytest.mark.parametrize("name", KERNELS)
class TestProperties:
    def test_symmetric_and_psd(self, name):
        K = KERNELS[name](X)
        assert_allclose(K, K.T, rtol=0, atol=0)
        assert np.linalg.eigvalsh(K)[0] > -1e-12 * np.trace(K)

    def test_diagonal(self, name):
        kernel = KERNELS[name]
        assert_allclose(kernel.diag(X), np.diag(kernel(X)), rtol=1e-14)
        assert_allclose(kernel.diag(X), np.diag(kernel(X, X.copy())), rtol=3e-7)

    def test_tiles_do_not_matter(self, name):
        kernel = KERNELS[name]
        K = kernel(X, X[:4])
        for size in (1, 3, 12, 100):
            tiled = clone(kernel).set_params(block_size=size)
            assert_allclose(tiled(X, X[:4]), K, rtol=1e-7)
        with config_context(working_memory=1e-3):
            assert_allclose(kernel(X, X[:4]), K, rtol=1e-7)

    def test_precision(self, name):
        kernel = clone(KERNELS[name]).set_params(dtype="float32")
        K = kernel(X[:6])
        assert K.dtype == np.float32
        wanted = KERNELS[name](X[:6])
        assert_allclose(K, wanted, rtol=0, atol=1e-4 * np.diag(wanted).max())

    def test_scikit_learn_protocol(self, name):
        kernel = KERNELS[name]
        assert clone(kernel) == kernel
        assert_allclose(pickle.loads(pickle.dumps(kernel))(X), kernel(X))
        assert repr(kernel) == repr(clone(kernel))
        assert f"depth={kernel.depth}" in repr(kernel)
        K, gradient = kernel(X, eval_gradient=True)
        assert gradient.shape == (*K.shape, 0)

    def test_on_meta_every_tensor_is_where_it_should_be(self, name):
        kernel = KERNELS[name]
        rule, _ = kernel._prepared(X, "X")
        shape = (4, *kernel.image_shape) if hasattr(kernel, "image_shape") else (4, 24)
        meta = torch.empty(shape, device="meta")
        own = rule.variances(meta)
        assert rule.tile(meta, meta, own, own).shape == (4, 4)
        assert rule.diagonal(meta).device.type == "meta"


def test_arrays_that_are_read_only():
    rows = X.copy()
    rows.flags.writeable = False
    assert_allclose(InfiniteWidthNTK()(rows), InfiniteWidthNTK()(X))
    assert_allclose(InfiniteWidthNTK()(torch.from_numpy(X)), InfiniteWidthNTK()(X))
    coarse = torch.from_numpy(X).to(torch.bfloat16).requires_grad_()
    assert_allclose(InfiniteWidthNTK()(coarse), InfiniteWidthNTK()(coarse.detach().double()))


def test_tiles_fit_into_what_is_estimated(monkeypatch):
    """Bytes that live at once for a tile: each allocation of torch, less what was freed."""
    kernels = [
        *(InfiniteWidthNTK(3, a) for a in ("relu", "erf")),
        InfiniteWidthConvNTK(3, "erf", image_shape=(2, 4, 3)),
        InfiniteWidthConvNTK(3, image_shape=(2, 4, 3), kernel_size=5),
        InfiniteWidthConvNTK(3, image_shape=(2, 4, 3), readout="average"),
        InfiniteWidthConvNTK(2, "erf", image_shape=(2, 4, 3), kernel_size=5, readout="average"),
    ]
    for kernel in kernels:
        rule, x = kernel._prepared(np.tile(X, (6, 1)), "X")
        own = rule.variances(x)
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
            rule.tile(x, x, own, own)
        changes = [
            e.nbytes() for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"
        ]
        peak = np.cumsum(changes).max()
        estimate = 8 * rule.size_of_pair(x) * len(x) ** 2
        assert 0.6 * estimate < peak <= estimate, kernel


def test_devices_that_are_not_there():
    for device in ("foo", "cuda:99"):
        with pytest.raises(ValueError, match=f"device='{device}' can't be used here: .*None means"):
            InfiniteWidthNTK(device=device)(X)


def test_reversed_and_mirrored_arrays():
    kernel = InfiniteWidthConvNTK(1, image_shape=(2, 4, 3))
    images = X.reshape(-1, 2, 4, 3)
    assert_allclose(kernel(images[::-1])[::-1, ::-1], kernel(X))
    assert_allclose(kernel(images[..., ::-1]), kernel(images[..., ::-1].copy()))
    dense = InfiniteWidthNTK()
    assert_allclose(dense(X[:, ::-1], X[::-1]), dense(X[:, ::-1].copy(), X[::-1].copy()))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kernel", [InfiniteWidthNTK(5, bias_std=0.1), InfiniteWidthNTK(2, "erf")])
def test_duplicates_are_as_their_diagonal(kernel, dtype):
    """Off the diagonal too, where formulas alone are off by the root of rounding."""
    rows = np.random.default_rng(0).normal(size=(6, 300))
    kernel = clone(kernel).set_params(dtype=dtype)
    for scale in (1.0, 1e4, 1e8):
        duplicates = np.diag(kernel(scale * rows, scale * rows.copy()))
        tolerance = {"float32": 3e-3, "float64": 1e-7}[dtype]
        tolerance *= 1e-3 if kernel.activation == "relu" else 1
        assert_allclose(duplicates, kernel.diag(scale * rows), rtol=tolerance)


@pytest.mark.parametrize("angle", [1.0, 0.1, 1e-2, 3e-3])
def test_near_samples_in_single_precision(angle):
    """Only what is rounding is cut: at larger angles nothing is lost."""
    rows = np.array([[1.0, 0.0], [np.cos(angle), np.sin(angle)]], dtype=np.float32)
    single, double = (InfiniteWidthNTK(dtype=d)(rows) for d in ("float32", "float64"))
    assert_allclose(single, double, rtol=1e-6 / angle)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e10])
def test_erf_of_duplicates_at_large_scales(scale):
    rows = np.random.default_rng(0).normal(size=(4, 10)) * scale
    rows[1] = rows[0]
    rows[2] = rows[0] * (1 + 1e-4)
    single, double = (InfiniteWidthNTK(2, "erf", dtype=d)(rows) for d in ("float32", "float64"))
    assert_allclose(single, double, rtol=2e-3)
    assert double[0, 1] == pytest.approx(double[0, 0], rel=1e-6)


def test_no_signal():
    """A sample of zeros without biases has no covariance with any other."""
    rows = np.vstack([np.zeros(3), np.eye(3)])
    for kernel in (InfiniteWidthNTK(3), InfiniteWidthConvNTK(2, image_shape=(1, 1, 3))):
        K = kernel(rows)
        assert (K[0] == 0).all()
        assert (np.diag(K)[1:] > 0).all()


class Scaled(nn.Module):
    """A layer of standard normal weights, scaled as the kernels' parametrisation has it."""

    def __init__(self, layer, weight_std, bias_std):
        super().__init__()
        self.layer = layer
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
        self.factor, self.bias_std = weight_std / layer.weight[0].numel() ** 0.5, bias_std

    def forward(self, x):
        linear = (
            self.layer._conv_forward if isinstance(self.layer, nn.Conv2d) else nn.functional.linear
        )
        return linear(x, self.factor * self.layer.weight, self.bias_std * self.layer.bias)


class Flat(nn.Module):
    def forward(self, x):
        return x.flatten(1)


class Mean(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def finite(name, width, std):
    if name == "dense":
        layers = [
            Scaled(nn.Linear(a, b), *std) for a, b in ((24, width), (width, width), (width, 1))
        ]
        return nn.Sequential(Flat(), layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    if name == "erf":
        erf = type("Erf", (nn.Module,), {"forward": lambda self, x: torch.erf(x)})()
        return nn.Sequential(
            Flat(), Scaled(nn.Linear(24, width), *std), erf, Scaled(nn.Linear(width, 1), *std)
        )
    readout, n = (Flat(), 12 * width) if name == "flatten" else (Mean(), width)
    conv = [Scaled(nn.Conv2d(c, width, 3, padding=1), *std) for c in (2, width)]
    return nn.Sequential(
        conv[0], nn.ReLU(), conv[1], nn.ReLU(), readout, Scaled(nn.Linear(n, 1), *std)
    )


def kernel_of(net, images):
    parameters = dict(net.named_parameters())

    def output(parameters, x):
        return functional_call(net, parameters, (x[None],))[0, 0]

    jacobians = vmap(jacrev(output), (None, 0))(parameters, images)
    flat = torch.cat([j.flatten(1) for j in jacobians.values()], 1)
    return (flat @ flat.T).detach().numpy()


@pytest.mark.parametrize("name", ["dense", "erf", "flatten", "average"])
def test_wide_networks(name):
    """4 percent of the root of both diagonal entries, on average over a few networks."""
    std = reference.SETTINGS["weight_std"], reference.SETTINGS["bias_std"]
    options = reference.SETTINGS | ({"activation": "erf"} if name == "erf" else {})
    if name in ("flatten", "average"):
        options |= {"image_shape": (2, 4, 3), "readout": name}
    K = infinite_ntk_kernel(X[:4], depth=1 if name == "erf" else 2, **options)
    images = torch.tensor(X[:4], dtype=torch.float32).reshape(4, 2, 4, 3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        n_nets = 6 if "image_shape" in options else 16
        nets = [kernel_of(finite(name, 1000, std), images) for _ in range(n_nets)]
    scale = np.sqrt(np.outer(np.diag(K), np.diag(K)))
    assert np.abs((np.mean(nets, axis=0) - K) / scale).max() < 0.04


class TestKernelMethods:
    X, y = np.random.default_rng(0).normal(size=(40, 5)), np.arange(40) % 3

    def test_svc_ridge_and_pca_are_those_of_the_matrix(self):
        kernel, K = InfiniteWidthNTK(), InfiniteWidthNTK()(self.X)
        given, matrix = (
            SVC(kernel=k).fit(x, self.y) for k, x in ((kernel, self.X), ("precomputed", K))
        )
        assert_allclose(given.decision_function(self.X), matrix.decision_function(K), atol=1e-6)
        given = KernelRidge(kernel=kernel).fit(self.X, self.y)
        matrix = KernelRidge(kernel="precomputed").fit(K, self.y)
        assert_allclose(given.predict(self.X), matrix.predict(K), atol=1e-8)
        given = KernelPCA(2, kernel=kernel).fit_transform(self.X)
        matrix = KernelPCA(2, kernel="precomputed").fit_transform(K)
        assert_allclose(np.abs(given), np.abs(matrix), atol=1e-8)

    def test_the_whole_matrix_is_computed_at_once(self, monkeypatch):
        calls = []
        original = _kernels.gram
        monkeypatch.setattr(_kernels, "gram", lambda *a: calls.append(1) or original(*a))
        KernelRidge(kernel=InfiniteWidthNTK()).fit(self.X, self.y)
        assert len(calls) == 1

    def test_gaussian_process(self):
        fixed = GaussianProcessClassifier(InfiniteWidthNTK()).fit(self.X, self.y)
        assert fixed.predict_proba(self.X).shape == (40, 3)
        start = TunableNTK(InfiniteWidthNTK(bias_std=0.5), bias_std_bounds="fixed")
        tuned = GaussianProcessClassifier(start).fit(self.X, self.y == 1)
        assert len(tuned.kernel_.theta) == 1
        best, given = tuned.log_marginal_likelihood_value_, start.theta
        assert best > tuned.log_marginal_likelihood(given) + 1e-3
        _, slope = tuned.log_marginal_likelihood(tuned.kernel_.theta, eval_gradient=True)
        at_bound = np.isclose(tuned.kernel_.theta, np.log([0.1, 10])).any()
        assert at_bound or np.abs(slope).max() < 1e-2


class TestTunable:
    def test_theta(self):
        kernel = TunableNTK(InfiniteWidthNTK(weight_std=2.0, bias_std=0.5))
        assert_allclose(np.exp(kernel.theta), [2.0, 0.5])
        moved = kernel.clone_with_theta(np.log([1.0, 0.1]))
        assert_allclose(moved(X), infinite_ntk_kernel(X, weight_std=1.0, bias_std=0.1))
        assert_allclose(np.exp(kernel.theta), [2.0, 0.5])
        assert_allclose(np.exp(kernel.bounds), [[0.1, 10], [1e-3, 10]])
        assert moved.get_params()["kernel__bias_std"] == pytest.approx(0.1)
        assert clone(moved) == moved

    def test_no_bias_is_no_hyperparameter(self):
        assert TunableNTK(InfiniteWidthNTK()).n_dims == 1
        assert TunableNTK().n_dims == 2

    @pytest.mark.parametrize("depth", [1, 2, 10])
    def test_gradient(self, depth):
        """Without biases the kernel is of degree 2 (depth + 1) in the scale of the weights."""
        kernel = TunableNTK(InfiniteWidthNTK(depth, weight_std=1.5))
        K, gradient = kernel(X, eval_gradient=True)
        wanted, multiples = 2 * (depth + 1) * K, np.ix_([6, 7, 8], [6, 7, 8])
        assert_allclose(gradient[multiples][..., 0], wanted[multiples], rtol=1e-6, atol=1e-12)
        gradient[multiples] = wanted[multiples][..., None]
        assert_allclose(gradient[..., 0], wanted, rtol=1e-7)

    def test_gradient_in_single_precision_and_by_biases(self):
        double, single = (
            TunableNTK(InfiniteWidthNTK(2, weight_std=1.5, dtype=d))(X, eval_gradient=True)[1]
            for d in ("float64", "float32")
        )
        assert_allclose(single, double, rtol=1e-6)
        kernel = TunableNTK(InfiniteWidthNTK(1, kind="nngp", weight_std=1e-4, bias_std=0.5))
        K, gradient = kernel(X, eval_gradient=True)
        assert_allclose(gradient[..., 1], 2 * K, rtol=1e-5)  # hardly more than the biases

    def test_gradient_by_both_scales(self):
        """Of erf, by a plain difference whose step is another one."""
        start = {"weight_std": 1.2, "bias_std": 0.3}
        kernel = TunableNTK(InfiniteWidthNTK(3, "erf", **start))
        gradient = kernel(X[:6], eval_gradient=True)[1]
        for k, name in enumerate(start):
            ends = [
                infinite_ntk_kernel(
                    X[:6], depth=3, activation="erf", **start | {name: start[name] * np.exp(s)}
                )
                for s in (-1e-5, 1e-5)
            ]
            assert_allclose(gradient[..., k], (ends[1] - ends[0]) / 2e-5, rtol=1e-5, atol=1e-8)

    def test_parameters_of_the_default_kernel(self):
        kernel = TunableNTK().set_params(kernel__depth=4, bias_std_bounds="fixed")
        assert_allclose(kernel(X), infinite_ntk_kernel(X, depth=4, bias_std=0.1))
        assert kernel.n_dims == 1
        given = InfiniteWidthNTK(7)
        assert TunableNTK().set_params(kernel=given, kernel__bias_std=0.2).kernel is given

    def test_names_that_are_none_change_nothing(self):
        kernel = TunableNTK()
        with pytest.raises(ValueError, match="Invalid parameter foo"):
            kernel.set_params(kernel__foo=3)
        assert kernel.kernel is None
        assert repr(TunableNTK(RBF())) == "TunableNTK(RBF(length_scale=1))"

    @pytest.mark.filterwarnings("ignore:The optimal value found for dimension")
    def test_a_process_on_repeated_measurements(self):
        rng = np.random.default_rng(0)
        rows = np.tile(rng.normal(size=(30, 4)), (2, 1))
        y = np.sin(2 * rows[:, 0]) + rows[:, 1] / 2 + 0.1 * rng.normal(size=60)
        for depth in (5, 10):
            kernel = TunableNTK(InfiniteWidthNTK(depth, bias_std=0.1))
            process = GaussianProcessRegressor(kernel, alpha=1e-2).fit(rows, y)
            start = process.kernel_.theta + 0.1
            slope = process.log_marginal_likelihood(start, eval_gradient=True)[1]
            for k in range(2):
                ends = [
                    process.log_marginal_likelihood(start + s * np.eye(2)[k]) for s in (1e-4, -1e-4)
                ]
                assert_allclose(slope[k], (ends[0] - ends[1]) / 2e-4, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("bounds", ["free", (1.0, 0.1), (0, 1), (1,), None, 3, (1, np.inf)])
    def test_bounds(self, bounds):
        kernel = TunableNTK(bias_std_bounds=bounds)
        with pytest.raises(ValueError, match='bias_std_bounds must be "fixed" or a pair'):
            repr(kernel.theta)

    def test_another_kernel(self):
        with pytest.raises(ValueError, match=r"whose scales are fitted; got RBF"):
            TunableNTK(RBF())(X)


class TestErrors:
    @pytest.mark.parametrize(
        ("params", "message"),
        [
            ({"depth": 0}, "depth"),
            ({"activation": "tanh"}, "activation"),
            ({"weight_std": 0.0}, "weight_std"),
            ({"bias_std": -1.0}, "bias_std"),
            ({"kind": "lpntk"}, "kind"),
            ({"dtype": "float16"}, "dtype"),
            ({"block_size": 0}, "block_size"),
            ({"image_shape": (2, 4, 3), "readout": "max"}, "readout"),
            ({"image_shape": (2, 4, 3), "stride": 0}, "stride"),
        ],
    )
    def test_parameters(self, params, message):
        with pytest.raises(ValueError, match=f"The '{message}' parameter"):
            infinite_ntk_kernel(X, **params)

    def test_images_of_another_shape(self):
        with pytest.raises(ValueError, match=r"samples of shape \(24,\); image_shape=\(1, 4, 3\)"):
            infinite_ntk_kernel(X, image_shape=(1, 4, 3))
        with pytest.raises(ValueError, match="three numbers"):
            infinite_ntk_kernel(X, image_shape=(4, 6))
        images = X.reshape(-1, 2, 4, 3)
        assert_allclose(
            infinite_ntk_kernel(images, image_shape=(2, 4, 3)),
            infinite_ntk_kernel(X, image_shape=(2, 4, 3)),
        )

    def test_overflow(self):
        with pytest.raises(ValueError, match="overflows in float64: X has values up to"):
            infinite_ntk_kernel(X * 1e200)
        single = InfiniteWidthNTK(1, "erf", dtype="float32")
        with pytest.raises(ValueError, match="overflows in float32: X has values up to 1e"):
            single(np.full((1, 3), 1e20), np.ones((1, 3)))
        with pytest.raises(ValueError, match="overflows in float32: Y has"):
            single(np.ones((1, 3)), np.full((1, 3), 1e20))
        with pytest.raises(ValueError, match="overflows"):
            single.diag(np.full((2, 3), 1e25))

    def test_no_features(self):
        with pytest.raises(ValueError, match=r"shape \(0, 2\), without any feature"):
            infinite_ntk_kernel(np.zeros((3, 0, 2)))

    def test_samples_of_another_length(self):
        with pytest.raises(ValueError, match=r"X has samples of shape \(24,\) and Y of \(5,\)"):
            infinite_ntk_kernel(X, X[:, :5])

    def test_nan(self):
        with pytest.raises(ValueError, match="Input X contains NaN"):
            infinite_ntk_kernel(np.where(X > 2, np.nan, X))

    def test_memory(self, monkeypatch):
        monkeypatch.setattr(_kernels, "available", lambda device: 8 * 50)
        with pytest.raises(ValueError, match=r"kernel needs .* Up to 7 samples would fit"):
            infinite_ntk_kernel(X)
        monkeypatch.setattr(_kernels, "available", lambda device: 8 * 200)
        with pytest.raises(ValueError, match=r"A single pair of samples needs .* Smaller images"):
            infinite_ntk_kernel(X, image_shape=(2, 4, 3), readout="average")
        with pytest.raises(ValueError, match="A single pair of samples needs"):
            InfiniteWidthConvNTK(image_shape=(2, 4, 3), readout="average").diag(X)

    def test_gradient_between_two_sets(self):
        for kernel in (InfiniteWidthNTK(), TunableNTK()):
            with pytest.raises(ValueError, match="Y=None only"):
                kernel(X, X[:3], eval_gradient=True)
