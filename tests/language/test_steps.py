"""Predictions of a step against the step itself."""

import copy
from functools import partial

import numpy as np
import pytest
import torch

from sklearn_lpntk.language import DPO, predict_log_proba, token_influence

from .models import (
    Recurrent,
    gpt2,
    lora,
    make,
    make_batch,
    sums,
    tied_llama,
    token_log_proba,
)


def with_exact_norms(model):
    """Norms in double precision: transformers computes them in single, at any dtype."""
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.__class__ = ExactNorm
    return model


class ExactNorm(torch.nn.Module):
    def forward(self, x):
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * (x * scale)


def mean_loss(model, batch):
    """As transformers computes it where it is given labels."""
    if isinstance(model, Recurrent):
        return -token_log_proba(model, batch).mean()
    return model(**batch).loss


def changed(model, probes, change):
    """log pi of the probes after a change of the parameters."""
    after = copy.deepcopy(model)
    with torch.no_grad():
        for name, p in after.named_parameters():
            if name in change:
                p.add_(change[name])
    return token_log_proba(after, probes).detach()


def gradient_of(loss, model):
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return dict(zip(trainable, torch.autograd.grad(loss, list(trainable.values()))))


@pytest.mark.parametrize("padding", [None, "right", "left"])
@pytest.mark.parametrize("family", [tied_llama, gpt2, lora, Recurrent])
def test_the_remainder_is_of_second_order(family, padding):
    model = with_exact_norms(make(family))
    probes, update = make_batch(4, 7, padding), make_batch(3, 6, padding, seed=1)
    gradient = gradient_of(mean_loss(model, update), model)
    rates, remainders = [1e-2, 1e-3], []
    for rate in rates:
        prediction = predict_log_proba(model, probes, update, learning_rate=rate)
        change = {name: -rate * g for name, g in gradient.items()}
        actual = changed(model, probes, change) - token_log_proba(model, probes).detach()
        found = prediction.delta_log_proba[probes["labels"].numpy() != -100]
        remainders.append(np.linalg.norm(found - actual.numpy()))
    slope = np.log10(remainders[0] / remainders[1])
    assert 1.95 < slope < 2.05


def test_layout():
    model, probes = make(gpt2), make_batch(3, 7, "left")
    found = predict_log_proba(model, probes, make_batch(2, 5, seed=1), learning_rate=0.1)
    labelled = probes["labels"].numpy() != -100
    assert found.delta_log_proba.shape == (3, 7)
    for values in (found.delta_log_proba, found.log_proba):
        np.testing.assert_array_equal(np.isnan(values), ~labelled)
    np.testing.assert_allclose(found.delta_response, np.nansum(found.delta_log_proba, 1))
    expected = token_log_proba(model, probes).detach().numpy()
    np.testing.assert_allclose(found.log_proba[labelled], expected, rtol=1e-12)


def test_a_step_is_the_sum_of_its_tokens():
    model, probes, update = make(gpt2), make_batch(3, 7, "left"), make_batch(2, 6, seed=1)
    influence = token_influence(model, probes, update)
    n_tokens = influence.matrix.shape[1]
    step = predict_log_proba(model, probes, update, learning_rate=0.1).delta_log_proba
    found = step[probes["labels"].numpy() != -100]
    np.testing.assert_allclose(found, 0.1 / n_tokens * influence.matrix.sum(1), rtol=1e-9)
    rows, positions = influence.tokens.observed_positions.T
    ids = probes["labels"].numpy()[rows, positions]
    np.testing.assert_array_equal(influence.tokens.observed, ids)
    assert influence.tokens.update_positions.shape == (n_tokens, 2)


def test_what_an_optimiser_did():
    model = with_exact_norms(make(lora))
    probes, update = make_batch(4, 7, "right"), make_batch(3, 6, seed=1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trained = copy.deepcopy(model)
    optimiser = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=1e-5)
    mean_loss(trained, update).backward()
    optimiser.step()
    after = dict(trained.named_parameters())
    change = {name: after[name].detach() - p for name, p in before.items() if "lora" in name}
    found = predict_log_proba(model, probes, parameter_change=change).delta_response
    with torch.no_grad():
        actual = token_log_proba(trained, probes) - token_log_proba(model, probes)
        expected = sums(actual, probes).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_a_step_of_dpo():
    """Against the loss as it is defined, with the derivative that autograd takes."""
    model, batch, probes = make(gpt2), make_batch(4, 6, "right"), make_batch(3, 7, seed=1)
    reference = make(gpt2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn_like(p))
    ratios = sums(token_log_proba(model, batch) - token_log_proba(reference, batch).detach(), batch)
    loss = -torch.nn.functional.logsigmoid(0.2 * (ratios[:2] - ratios[2:])).mean()
    change = {name: -1e-3 * g for name, g in gradient_of(loss, model).items()}
    expected = predict_log_proba(model, probes, parameter_change=change).delta_log_proba
    options = {"objective": DPO(beta=0.2), "reference": reference, "learning_rate": 1e-3}
    found = predict_log_proba(model, probes, batch, **options).delta_log_proba
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_the_model_comes_back():
    model = make(lora).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    predict_log_proba(model, make_batch(2, 5), make_batch(2, 6), learning_rate=0.1)
    token_influence(model, make_batch(2, 5), make_batch(2, 6))
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def _is_in_mlp(wanted, name):
    return ("mlp" in name) == wanted


def test_some_parameters():
    model, probes, update = make(gpt2), make_batch(3, 7), make_batch(2, 6, seed=1)
    parts = []
    for wanted in (False, True):
        chosen = partial(_is_in_mlp, wanted)
        options = {"learning_rate": 0.1, "parameters": chosen}
        parts.append(predict_log_proba(model, probes, update, **options).delta_response)
    whole = predict_log_proba(model, probes, update, learning_rate=0.1).delta_response
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "update is needed"),
        ({"update": make_batch(2, 5)}, "learning_rate must be a number above 0"),
        ({"update": make_batch(2, 5), "learning_rate": -1.0}, "learning_rate must be a number"),
        ({"update": make_batch(2, 5), "parameter_change": {}}, "takes the place of the step"),
        ({"parameter_change": {}, "parameters": "head"}, "names what it changes"),
        ({"parameter_change": {"nowhere": torch.zeros(2)}}, "no parameters of the network"),
        ({"parameter_change": {"head.bias": torch.zeros(2)}}, "of shape"),
        ({"parameter_change": {}}, "must be a dict"),
        ({"update": make_batch(2, 5), "learning_rate": 0.1, "objective": "ppo"}, "objective must"),
        ({"update": make_batch(3, 5), "learning_rate": 0.1, "objective": "dpo"}, "is odd"),
        ({"update": make_batch(2, 5), "learning_rate": 0.1, "objective": "dpo"}, "reference="),
        (
            {"update": make_batch(2, 5), "learning_rate": 0.1, "reference": torch.zeros(2, 5)},
            "belongs to objective='dpo'",
        ),
        (
            {"update": make_batch(2, 5), "learning_rate": 0.1, "objective": lambda z, b: z},
            r"must return a tensor of shape \(2, 5\)",
        ),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        predict_log_proba(make(Recurrent), make_batch(2, 6), **options)
