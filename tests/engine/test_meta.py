"""The core runs on torch's meta device, where a stray CPU tensor raises."""

import pytest
import torch

from sklearn_lpntk._engine.cotangents import COTANGENTS, find_cotangent
from sklearn_lpntk._engine.extract import Extractor
from sklearn_lpntk._engine.operator import KernelOperator
from sklearn_lpntk._engine.sketch import Sketch

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
    extractor = Extractor(net, find_cotangent(kernel), batch_size=4)
    features = extractor(X, torch.zeros(len(X), dtype=torch.int64, device="meta"))
    assert features.device.type == "meta"
    R = n_logits if kernel == "entk" else 1
    assert features.gram(features).shape == (len(X) * R, len(X) * R)
    assert features.materialise().device.type == "meta"
    for _, _, tile in KernelOperator(features)._tiles():
        assert tile.device.type == "meta"
    V = torch.empty(len(X) * R, 2, dtype=torch.float64, device="meta")
    assert features.dots(features.weighted_sums(V.float()), 2).shape == V.shape
    assert Sketch(8, 0)(features).materialise().shape == (len(X) * R, 8)
