"""``J t`` by each way, against one backward pass a sample and logit."""

import pytest
import torch

from sklearn_lpntk._engine.directional import DirectionalDerivative, weighted_gradient
from sklearn_lpntk._engine.inputs import n_rows
from sklearn_lpntk._engine.parameters import select_parameters
from sklearn_lpntk._engine.session import borrowed

from ..nets import TRAPS
from ..oracle import oracle_features

# where a way fails, and another is found
UNKNOWN = {
    "_forward": {"embedding_bag", "weight_norm_and_spectral_norm"},
    "_two_reverse_passes": {"embedding_bag"},
    "_one_by_one": set(),
}


@pytest.mark.parametrize("way", ["_forward", "_two_reverse_passes", "_one_by_one"])
@pytest.mark.parametrize("name", TRAPS)
def test_every_way_is_the_jacobian_times_the_direction(name, way):
    module, X, n_logits = TRAPS[name]()
    names = select_parameters(module, None)
    module.eval()
    flags = [p.requires_grad for p in module.parameters()]
    with borrowed(module):
        parameters = {k: p for k, p in module.named_parameters() if k in names}
        # a direction as training gives it: zero for what no gradient reaches
        direction, _ = weighted_gradient(module, parameters, X, torch.randn_like)
        derivative = DirectionalDerivative(module)
        if name in UNKNOWN[way]:
            derivative(X, direction)
            assert getattr(derivative, way) not in derivative._ways
            return
        derivative._ways = [getattr(derivative, way)]
        logits, found = derivative(X, direction)
    assert [p.requires_grad for p in module.parameters()] == flags
    labels = torch.zeros(n_rows(X), dtype=torch.int64)
    phi = oracle_features(module, X, labels, "entk", names)
    flat = torch.cat([direction[k].flatten() for k in parameters])
    expected = (phi @ flat).reshape(-1, n_logits)
    assert logits.shape == found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10 * expected.abs().max())


def test_a_shared_module_without_a_rule_keeps_its_parameters():
    """functional_call would leave the substituted tensors in it."""
    module, X, _ = TRAPS["shared_module_without_a_rule"]()
    before = module[0].weight
    with borrowed(module):
        parameters = dict(module.named_parameters())
        direction = {k: torch.ones_like(p) for k, p in parameters.items()}
        DirectionalDerivative(module)(X, direction)
    assert module[0].weight is before
    assert module[2].weight is before
