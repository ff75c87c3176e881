"""The core runs on torch's meta device, where a stray CPU tensor raises."""

import pytest
import torch

from sklearn_lpntk._engine.cotangents import COTANGENTS, find_cotangent
from sklearn_lpntk._engine.directional import DirectionalDerivative, mean_gradient
from sklearn_lpntk._engine.extract import Extractor
from sklearn_lpntk._engine.kernel import Kernel
from sklearn_lpntk._engine.parameters import select_parameters
from sklearn_lpntk._engine.session import borrowed
from sklearn_lpntk._engine.sketch import Sketch
from sklearn_lpntk._engine.sources import Precise
from sklearn_lpntk.dynamics._stacked import _Training
from sklearn_lpntk.kernels import KernelOperator

from ..nets import TRAPS


@pytest.mark.filterwarnings("ignore::sklearn_lpntk.exceptions.AutogradRuleWarning")
@pytest.mark.parametrize("kernel", COTANGENTS)
@pytest.mark.parametrize(
    "name",
    [
        "lenet5",
        "resnet18_after_training",
        "grouped_dilated_circular",
        "normalisations",
        "bag_of_words",
        "large_vocabulary",
        "embedding_bag",
        "bare_parameter",
        "one_logit",
    ],
)
def test_core_on_meta(name, kernel):
    net, X, n_logits = TRAPS[name]()
    net, X = net.to("meta"), X.to("meta")
    extractor = Extractor(net, kernel, batch_size=4)
    features = extractor(X, torch.zeros(len(X), dtype=torch.int64, device="meta"))
    assert features.device.type == "meta"
    R = n_logits if kernel == "entk" else 1
    assert features.gram(features).shape == (len(X) * R, len(X) * R)
    assert features.materialise().device.type == "meta"
    for _, _, tile in KernelOperator(features).kernel.tiles():
        assert tile.device.type == "meta"
    for _, _, tile in Kernel(Precise(features)).tiles():
        assert (tile.device.type, tile.dtype) == ("meta", torch.float64)
    V = torch.empty(len(X) * R, 2, dtype=torch.float64, device="meta")
    assert features.dots(features.weighted_sums(V.float()), 2).shape == V.shape
    assert Sketch(8, 0)(features).materialise().shape == (len(X) * R, 8)


@pytest.mark.parametrize("way", ["_forward", "_two_reverse_passes"])
@pytest.mark.parametrize("name", ["lenet5", "resnet18_after_training", "bag_of_words", "one_logit"])
def test_derivatives_on_meta(name, way):
    net, X, n_logits = TRAPS[name]()
    net, X = net.to("meta"), X.to("meta")
    y = torch.zeros(len(X), dtype=torch.int64, device="meta")
    with borrowed(net):
        parameters = dict(net.named_parameters())
        direction = mean_gradient(net, parameters, X, y, find_cotangent("loss_gradient"))
        derivative = DirectionalDerivative(net)
        derivative._ways = [getattr(derivative, way)]
        for found in derivative(X, direction):
            assert found.shape == (len(X), n_logits)
            assert found.device.type == "meta"


def test_stacks_on_meta():
    net, X, _ = TRAPS["lenet5"]()
    net, X = net.to("meta"), X.to("meta")
    names = select_parameters(net, None)
    with borrowed(net):
        parameters = {k: p for k, p in net.named_parameters() if k in names}
        train = _Training(net, parameters, n_epochs=2, learning_rate=0.1)
        y = torch.zeros(3, 2, dtype=torch.int64, device="meta")
        losses = train._together(X[:6].reshape(3, 2, 1, 28, 28), y)
    assert losses.shape == (3, 2)
    assert losses.device.type == "meta"
