"""The kernel is that of what a skorch net computes: its own reading of X is followed or refused."""

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from skorch.dataset import Dataset as ArrayDataset
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate

from sklearn_lpntk import LpNTKTransformer, RedundancyPruner
from sklearn_lpntk.dynamics import predict_forgetting, predict_update, train_test_similarity
from sklearn_lpntk.kernels import entk_kernel, lpntk_kernel, pntk_kernel

rng = np.random.default_rng(0)
X, y = rng.normal(size=(24, 4)).astype(np.float32), np.arange(24) % 3


class Net(nn.Module):
    """Some parameters of its own, and layers; it counts its calls."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Tanh())
        self.scale = nn.Parameter(torch.ones(5) / 2)
        self.out = nn.Linear(5, 3)

    def forward(self, x):
        return self.out(self.scale * self.layers(x))


def scaled(x):
    return 3 * x - 1


class OwnInfer(NeuralNetClassifier):
    def infer(self, x, **fit_params):
        return super().infer(scaled(x), **fit_params)


class OwnInferTwice(NeuralNetClassifier):
    """Two passes through the module, and an operation after them."""

    def infer(self, x, **fit_params):
        return super().infer(x, **fit_params) + 2 * self.module_(scaled(x))


class Scaled(Dataset):
    def __init__(self, X, y=None, factor=3):
        self.X, self.y, self.factor = np.asarray(X), y, factor

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.factor * self.X[i] - 1, 0 if self.y is None else self.y[i]


class OwnGetDataset(NeuralNetClassifier):
    def get_dataset(self, X, y=None):
        return super().get_dataset(scaled(X), y)


def collate(items):
    x, targets = default_collate(items)
    return scaled(x), targets


class Transforms(ArrayDataset):
    def transform(self, X, y):
        return scaled(X), super().transform(X, y)[1]


def net(kind=NeuralNetClassifier, **options):
    options = {"criterion": nn.CrossEntropyLoss, "train_split": None, "verbose": 0} | options
    return kind(Net, max_epochs=2, lr=0.1, **options)


NETS = {
    "infer": lambda: net(OwnInfer),
    "dataset": lambda: net(dataset=Scaled),
    "dataset_options": lambda: net(dataset=Scaled, dataset__factor=3),
    "transform": lambda: net(dataset=Transforms),
    "get_dataset": lambda: net(OwnGetDataset),
    "collate": lambda: net(iterator_train__collate_fn=collate, iterator_valid__collate_fn=collate),
    "workers": lambda: net(dataset=Scaled, iterator_valid__num_workers=0, batch_size=5),
}


@pytest.fixture(params=NETS)
def fitted(request):
    return NETS[request.param]().fit(X, y)


class Shifted(nn.Module):
    """What all these nets compute, as a plain module."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(scaled(x))


def test_the_reference_is_what_they_predict(fitted):
    module = Shifted(fitted.module_).eval()
    expected = module(torch.tensor(X)).detach()
    torch.testing.assert_close(fitted.forward(X), expected)


def test_kernels(fitted):
    module = Shifted(fitted.module_)
    for kernel, args in ((lpntk_kernel, (y,)), (pntk_kernel, ()), (entk_kernel, ())):
        expected = kernel(module, X, *args)
        np.testing.assert_allclose(kernel(fitted, X, *args), expected, rtol=1e-5, atol=1e-6)
    both = lpntk_kernel(fitted, X[:5], y[:5], X[5:], y[5:])
    np.testing.assert_allclose(both, lpntk_kernel(module, X, y)[:5, 5:], rtol=1e-5, atol=1e-6)


def test_names_of_parameters_are_the_modules(fitted):
    expected = lpntk_kernel(Shifted(fitted.module_), X, y, parameters="inner.out")
    found = lpntk_kernel(fitted, X, y, parameters="out")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_dynamics(fitted):
    module = Shifted(fitted.module_)
    for method in ("jvp", "ntk"):
        arguments = X[:8], y[:8], X[8:]
        found = predict_update(fitted, *arguments, learning_rate=0.1, method=method)
        expected = predict_update(module, *arguments, learning_rate=0.1, method=method)
        np.testing.assert_allclose(found.delta_logits, expected.delta_logits, 1e-4, atol=1e-6)
    arguments = X[:8], y[:8], X[8:], y[8:]
    found, expected = (train_test_similarity(n, *arguments).lpntk for n in (fitted, module))
    np.testing.assert_array_equal(found.helpful, expected.helpful)
    options = {"learning_rate": 0.1, "n_iterations": 10, "random_state": 0}
    found, expected = (predict_forgetting(n, X, y, **options) for n in (fitted, module))
    np.testing.assert_allclose(found.margins, expected.margins, rtol=1e-3, atol=1e-4)


def test_the_net_comes_back_as_it_was(fitted):
    fitted.module_.train()
    before = {k: v.clone() for k, v in fitted.module_.state_dict().items()}
    lpntk_kernel(fitted, X, y)
    assert all(m.training for m in fitted.module_.modules())
    assert all(torch.equal(v, before[k]) for k, v in fitted.module_.state_dict().items())
    assert type(fitted.module_) is Net


@pytest.mark.parametrize("kind", NETS)
def test_estimators(kind):
    pruner = RedundancyPruner(net=NETS[kind](), random_state=0, prune_fraction=0.5).fit(X, y)
    found = pruner.net_
    np.testing.assert_array_equal(pruner.predict(X), pruner.estimator_.predict(X))
    order = RedundancyPruner(
        net=Shifted(found.module_), estimator=net(), random_state=0, prune_fraction=0.5
    ).fit(X, y)
    np.testing.assert_array_equal(pruner.prune_order_, order.prune_order_)
    transformer = LpNTKTransformer(NETS[kind](), output="kernel", random_state=0)
    K = transformer.fit_transform(X, y)
    expected = lpntk_kernel(Shifted(transformer.net_.module_), X, y)
    np.testing.assert_allclose(K, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(transformer.transform(X, y), K, rtol=1e-5, atol=1e-6)


def test_several_passes_in_infer():
    fitted = net(OwnInferTwice).fit(X, y)

    class Twice(Shifted):
        def forward(self, x):
            return self.inner(x) + 2 * self.inner(scaled(x))

    expected = lpntk_kernel(Twice(fitted.module_), X, y)
    np.testing.assert_allclose(lpntk_kernel(fitted, X, y), expected, rtol=1e-5, atol=1e-6)


def test_a_data_set_is_collated_by_the_net():
    fitted = NETS["collate"]().fit(X, y)
    expected = lpntk_kernel(Shifted(fitted.module_), X, y)
    data = TensorDataset(torch.tensor(X), torch.tensor(y))
    np.testing.assert_allclose(lpntk_kernel(fitted, data, None), expected, rtol=1e-5, atol=1e-6)


# -- what is refused ------------------------------------------------------------------------


class OwnStep(NeuralNetClassifier):
    def evaluation_step(self, batch, training=False):
        return super().evaluation_step((scaled(batch[0]), batch[1]), training)


class OwnForward(NeuralNetClassifier):
    def forward_iter(self, X, *args, **kwargs):
        for out in super().forward_iter(X, *args, **kwargs):
            yield 2 * out


class Shuffled(ArrayDataset):
    def transform(self, X, y):
        return X + torch.randn(()).numpy(), super().transform(X, y)[1]


class Halved(ArrayDataset):
    def __len__(self):
        return super().__len__() // 2


class Pairs(ArrayDataset):
    def transform(self, X, y):
        return X, X, super().transform(X, y)[1]


@pytest.mark.filterwarnings("ignore:You set iterator_valid__shuffle=True")
@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: net(OwnStep), "OwnStep computes.*: evaluation_step of its own"),
        (lambda: net(OwnForward), "OwnForward computes.*: forward_iter of its own"),
        (lambda: net(dataset=Shuffled), "reads it .*random transform.*transforms of evaluation"),
        (lambda: net(dataset=Halved), "24 samples, and what .* of 12"),
        (lambda: net(iterator_valid__shuffle=True, dataset=Transforms), "order of its own"),
    ],
    ids=["evaluation_step", "forward_iter", "random", "half", "shuffled"],
)
def test_what_is_refused(make, match):
    fitted = make().initialize()
    for find in (lpntk_kernel, lambda *args: predict_update(*args, X, learning_rate=1)):
        with pytest.raises(ValueError, match=match):
            find(fitted, X, y)


class Logs(NeuralNetClassifier):
    """Hooks of its own that change nothing."""

    def evaluation_step(self, batch, training=False):
        return super().evaluation_step(batch, training)

    def infer(self, x, **fit_params):
        return super().infer(x, **fit_params)


def test_hooks_that_change_nothing_are_no_matter():
    fitted = net(Logs).fit(X, y)
    expected = lpntk_kernel(fitted.module_, X, y)
    np.testing.assert_allclose(lpntk_kernel(fitted, X, y), expected, rtol=1e-6)


def test_a_loader_of_the_nets_own_kind():
    class Loader(DataLoader):
        """Nothing of its own."""

    fitted = net(iterator_valid=Loader).fit(X, y)
    np.testing.assert_array_equal(lpntk_kernel(fitted, X, y), lpntk_kernel(fitted.module_, X, y))
