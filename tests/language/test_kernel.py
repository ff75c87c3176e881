"""The kernels of sequences and of tokens against one backward pass at a time."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sklearn_lpntk.exceptions import AutogradRuleWarning
from sklearn_lpntk.language import DPO, _steps, sequence_kernel, token_influence

from .models import (
    FAMILIES,
    ROUNDING,
    Recurrent,
    call,
    eager_llama,
    gpt2,
    jacobian,
    llama,
    lora,
    make,
    make_batch,
    sequence_jacobian,
    sums,
    tied_llama,
    token_log_proba,
)

PADDINGS = None, "right", "left"


def assert_same(found, expected, rtol=1e-10):
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=rtol * np.abs(expected).max())


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("family", [*FAMILIES, Recurrent])
class TestExact:
    def test_sequences(self, family, padding):
        model, batch, other = make(family), make_batch(3, 7, padding), make_batch(2, 5, seed=1)
        J, J2 = (sequence_jacobian(model, b) for b in (batch, other))
        assert_same(sequence_kernel(model, batch).toarray(), J @ J.T)
        assert_same(sequence_kernel(model, batch, other).toarray(), J @ J2.T)

    def test_tokens(self, family, padding):
        """R and S differ: fewer tokens on either side."""
        model, observed, update = make(family), make_batch(3, 7, padding), make_batch(2, 5, seed=1)
        J, J2 = (jacobian(token_log_proba(model, b), model) for b in (observed, update))
        found = token_influence(model, observed, update)
        assert_same(found.matrix, J @ J2.T)
        assert_same(token_influence(model, update, observed).matrix, J2 @ J.T)
        assert_same(found.log_proba, token_log_proba(model, observed).detach())

    def test_sums_of_tokens_are_sequences(self, family, padding):
        model, batch = make(family), make_batch(3, 6, padding)
        tokens = torch.from_numpy(token_influence(model, batch, batch).matrix)
        rtol = 1e-6 if family.__name__ in ROUNDING else 1e-10
        K = sequence_kernel(model, batch).toarray()
        assert_same(sums(sums(tokens, batch).T, batch), K, rtol)


@pytest.mark.parametrize("family", [tied_llama, gpt2, lora, Recurrent])
def test_tokens_by_derivatives_along_gradients(family, monkeypatch):
    """As for models of which two gradients fit, and no more."""
    model, observed, update = make(family), make_batch(3, 7, "left"), make_batch(1, 5, seed=1)
    expected = token_influence(model, observed, update).matrix
    monkeypatch.setattr(_steps, "KEPT_BYTES", 0)
    rtol = 1e-6 if family.__name__ in ROUNDING else 1e-10
    assert_same(token_influence(model, observed, update).matrix, expected, rtol)
    assert_same(token_influence(model, update, observed).matrix, expected.T, rtol)


def test_no_parameter_takes_the_slow_rule(recwarn):
    for family in FAMILIES:
        sequence_kernel(make(family).float(), make_batch(4, 6, "right"))
    assert not [w for w in recwarn if issubclass(w.category, AutogradRuleWarning)]


def test_adapters_alone_count():
    model, batch = make(lora), make_batch(3, 6)
    frozen = {name: p.clone() for name, p in model.named_parameters()}
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    sequence_kernel(model, batch).toarray()
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters())
    some = sequence_kernel(model, batch, parameters=lambda name: "lora_A" in name).toarray()
    for name, p in model.named_parameters():
        p.requires_grad_("lora_A" in name)
    J = sequence_jacobian(model, batch)
    assert_same(some, J @ J.T)


def test_the_operators_doors(tmp_path):
    model, batch = make(llama), make_batch(5, 6)
    expected = sequence_kernel(model, batch).toarray()
    for _ in range(2):
        stored = sequence_kernel(model, batch, store=tmp_path / "store")
        assert_same(stored.toarray(), expected)
    assert (tmp_path / "store").exists()
    sketched = sequence_kernel(model, batch, n_components=4096, random_state=0).toarray()
    assert 0 < np.abs(sketched - expected).max() < 0.3 * np.abs(expected).max()


# -- objectives -----------------------------------------------------------------------------


def dpo_loss(model, reference, batch, beta):
    """-log sigmoid of the margin, pair by pair: the definition."""
    own = sums(token_log_proba(model, batch), batch)
    ratios = own - sums(token_log_proba(reference, batch), batch).detach()
    chosen, rejected = ratios.chunk(2)
    return -F.logsigmoid(beta * (chosen - rejected))


@pytest.mark.parametrize("padding", PADDINGS)
def test_dpo(padding):
    model, batch = make(gpt2), make_batch(4, 7, padding)
    reference = copy.deepcopy(model)
    with torch.no_grad():
        for p in reference.parameters():
            p.add_(0.05 * torch.randn_like(p))
    J = jacobian(dpo_loss(model, reference, batch, 0.3), model)
    options = {"objective": DPO(beta=0.3), "reference": reference}
    K = sequence_kernel(model, batch, **options).toarray()
    pairs = K.reshape(2, 2, 2, 2).sum((0, 2))  # a pair's gradient is the sum of its two answers'
    assert_same(pairs, J @ J.T)
    found = token_influence(model, batch, batch, **options).matrix
    J2 = jacobian(token_log_proba(model, batch), model)
    by_row = sums(torch.from_numpy(found).T, batch)
    assert_same(by_row[:2] + by_row[2:], -(J @ J2.T))
    known = reference_log_proba(reference, batch)
    again = sequence_kernel(model, batch, objective=DPO(beta=0.3), reference=known)
    assert_same(again.toarray(), K)


def reference_log_proba(reference, batch):
    """What users have: (n, T), with whatever where there is no label."""
    out = torch.full(batch["labels"].shape, torch.nan, dtype=torch.float64)
    out[batch["labels"] != -100] = token_log_proba(reference, batch).detach()
    return out


def test_dpo_of_what_trl_precomputes_and_of_adapters():
    model, batch = make(lora), make_batch(4, 6)
    with model.disable_adapter():
        base = sums(token_log_proba(model, batch), batch).detach()
    by_adapters = sequence_kernel(model, batch, objective="dpo").toarray()
    known = batch | {"ref_chosen_logps": base[:2], "ref_rejected_logps": base[2:]}
    assert_same(sequence_kernel(model, known, objective="dpo").toarray(), by_adapters)
    rows = reference_log_proba(model, batch)
    other = sequence_kernel(model, batch, objective="dpo", reference=rows).toarray()
    assert np.abs(other - by_adapters).max() > 1e-3 * np.abs(by_adapters).max()


@pytest.mark.parametrize("how", ["cross_entropy", "gather"])
def test_a_callable(how):
    def unlikelihood(logits, batch):
        targets = batch["labels"][:, 1:].clamp(min=0)
        if how == "gather":
            log_proba = logits[:, :-1].log_softmax(2).gather(2, targets[..., None])[..., 0]
        else:
            flat = F.cross_entropy(
                logits[:, :-1].flatten(0, 1), targets.flatten(), reduction="none"
            )
            log_proba = -flat.view(targets.shape)
        return F.pad(batch["weight"][:, None] * log_proba, (1, 0))

    model, batch = make(llama), make_batch(3, 6, "right")
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    K = sequence_kernel(model, batch | {"weight": weight}, objective=unlikelihood).toarray()
    J = weight[:, None] * sequence_jacobian(model, batch)
    assert_same(K, J @ J.T)


def test_eager_attention():
    model, batch = make(eager_llama), make_batch(3, 6, "right")
    J = sequence_jacobian(model, batch)
    assert_same(sequence_kernel(model, batch).toarray(), J @ J.T)


def test_half_precision_is_computed_in_single():
    model, batch = make(llama).bfloat16(), make_batch(3, 6)
    with pytest.warns(UserWarning, match="bfloat16"):
        K = sequence_kernel(model, batch).toarray()
    model.double()
    J = sequence_jacobian(model, batch)
    assert_same(K, J @ J.T, 1e-5)
    assert call(model, batch).dtype == torch.float64
