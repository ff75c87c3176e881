"""Faults of a kind that were found by attack: numbers, flags and threads."""

import copy
import threading

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from sklearn_lpntk.language import (
    LanguageSelector,
    predict_log_proba,
    sequence_kernel,
    squeeze,
    token_influence,
)

from .models import (
    Recurrent,
    jacobian,
    llama,
    lora,
    make,
    make_batch,
    sequence_jacobian,
    tied_llama,
    token_log_proba,
)

BATCH = make_batch(4, 7, "right")


def flags(model):
    return {name: p.requires_grad for name, p in model.named_parameters()}


class TestAdaptersAndTheirBase:
    def test_frozen_adapters_stay_frozen(self):
        model = make(lora)
        for name, p in model.named_parameters():
            if "lora_A" in name:
                p.requires_grad_(False)
        before = flags(model)
        base = copy.deepcopy(model)
        with base.disable_adapter():
            known = token_log_proba(base, BATCH).detach()
        reference = torch.zeros(BATCH["labels"].shape, dtype=torch.float64)
        reference[BATCH["labels"] != -100] = known
        options = {"objective": "dpo", "learning_rate": 0.1}
        expected = predict_log_proba(model, BATCH, BATCH, reference=reference, **options)
        found = predict_log_proba(model, BATCH, BATCH, **options)
        np.testing.assert_allclose(found.delta_response, expected.delta_response, rtol=1e-8)
        assert flags(model) == before

    def test_merged_ones_are_refused(self):
        model = make(lora)
        model.merge_adapter()
        weights = {name: p.clone() for name, p in model.named_parameters()}
        with pytest.raises(ValueError, match="merged into the weights"):
            sequence_kernel(model, BATCH, objective="dpo")
        assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())

    def test_threads(self):
        model, found = make(lora), []
        expected = predict_log_proba(model, BATCH, BATCH, objective="dpo", learning_rate=0.1)

        def run():
            options = {"objective": "dpo", "learning_rate": 0.1}
            found.extend(predict_log_proba(model, BATCH, BATCH, **options) for _ in range(3))

        before, threads = flags(model), [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 9
        for one in found:
            np.testing.assert_allclose(one.delta_response, expected.delta_response, rtol=1e-8)
        assert flags(model) == before


def test_packed_sequences():
    """Without a mask, transformers tells them by their positions."""
    model = make(llama)
    ids = make_batch(1, 11)["input_ids"]
    positions = torch.cat([torch.arange(5), torch.arange(6)])[None]
    labels = ids.clone()
    labels[0, [0, 5]] = -100
    packed = {"input_ids": ids, "position_ids": positions, "labels": labels}
    apart = [{"input_ids": ids[0, :5]}, {"input_ids": ids[0, 5:]}]
    found = predict_log_proba(model, packed, packed, learning_rate=0.1)
    expected = predict_log_proba(model, apart, apart, learning_rate=0.1)
    np.testing.assert_allclose(found.delta_response.sum(), expected.delta_response.sum(), rtol=1e-6)
    with pytest.raises(ValueError, match="can't be taken apart"):
        LanguageSelector(model).fit(packed, packed)


def test_positions_that_all_sequences_share():
    model, batch = make(llama), make_batch(3, 6)
    positions = torch.arange(4, 10)[None]
    one = sequence_kernel(model, batch | {"position_ids": positions}).toarray()
    each = sequence_kernel(model, batch | {"position_ids": positions.expand(3, -1)}).toarray()
    np.testing.assert_array_equal(one, each)


class TestNothingFiniteIsMadeUp:
    def test_infinite_rates(self):
        with pytest.raises(ValueError, match="learning_rate must be"):
            predict_log_proba(make(Recurrent), BATCH, BATCH, learning_rate=float("inf"))
        with pytest.raises(ValueError, match="step must be"):
            squeeze(torch.zeros(3), 0, float("inf"))

    def test_objectives_without_a_derivative(self):
        def of_zero(logits, batch):
            proba = torch.softmax(logits, 2).amax(2) * (batch["labels"] != -100)
            return -torch.log(proba)

        model = make(Recurrent)
        with pytest.raises(ValueError, match="contains NaN or infinity"):
            predict_log_proba(model, BATCH, BATCH, objective=of_zero, learning_rate=0.1)
        with pytest.raises(ValueError, match="contains NaN or infinity"):
            token_influence(model, BATCH, BATCH, objective=of_zero)

    @pytest.mark.parametrize("strategy", ["gradient_similarity", "loss", "redundant"])
    def test_sequences_without_labels(self, strategy):
        batch = make_batch(3, 7)
        batch["labels"][1] = -100
        with pytest.raises(ValueError, match="without a labelled token"):
            LanguageSelector(make(Recurrent), strategy=strategy).fit(batch, BATCH)


def test_the_callers_hooks_on_parameters_change_nothing():
    model, calls = make(llama), []
    expected = sequence_jacobian(model, BATCH)
    for p in model.parameters():
        p.register_hook(lambda g: calls.append(1) or torch.zeros_like(g))
    found = sequence_kernel(model, BATCH).toarray()
    np.testing.assert_allclose(found, expected @ expected.T, rtol=1e-9)
    assert not calls
    token_log_proba(model, BATCH).sum().backward()
    assert calls
    assert all((p.grad == 0).all() for p in model.parameters())


class TestSelector:
    def test_the_loss_is_that_of_the_objective(self):
        def upside_down(logits, batch):
            labels = batch["labels"][:, 1:].clamp(min=0)
            own = logits[:, :-1].log_softmax(2).gather(2, labels[..., None])[..., 0]
            return nn.functional.pad(own, (1, 0))

        model, train = make(Recurrent), make_batch(5, 7)
        plain = LanguageSelector(model, strategy="loss").fit(train).scores_
        turned = LanguageSelector(model, strategy="loss", objective=upside_down).fit(train).scores_
        np.testing.assert_allclose(turned, -plain)

    def test_a_clone_keeps_its_optimizer(self):
        model, train = make(Recurrent), make_batch(5, 7)
        optimizer = torch.optim.Adam(model.parameters())
        (-token_log_proba(model, train).mean()).backward()
        optimizer.step()
        selector = LanguageSelector(model, optimizer=optimizer)
        expected = selector.fit(train, train).scores_
        np.testing.assert_allclose(clone(selector).fit(train, train).scores_, expected, rtol=1e-9)
        inside = nn.DataParallel(model)
        again = LanguageSelector(inside, optimizer=optimizer).fit(train, train).scores_
        np.testing.assert_allclose(again, expected, rtol=1e-9)


def test_objectives_that_couple_sequences_are_refused():
    def shared(logits, batch):
        labels = batch["labels"][:, 1:].clamp(min=0)
        own = logits[:, :-1].log_softmax(2).gather(2, labels[..., None])[..., 0]
        return nn.functional.pad(-own, (1, 0)) / (batch["labels"] != -100).sum()

    model = make(Recurrent)
    with pytest.raises(ValueError, match="depend on the rest of the batch"):
        predict_log_proba(model, BATCH, BATCH, objective=shared, learning_rate=0.1)
    with pytest.raises(ValueError, match="depend on the rest of the batch"):
        token_influence(model, BATCH, BATCH, objective=shared)


class Wrapper(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *args, **kwargs):
        return self.model(*args, **kwargs).logits


@pytest.mark.filterwarnings("ignore::sklearn_lpntk.exceptions.AutogradRuleWarning")
def test_wrappers_pass_the_mask_on():
    model, batch = make(llama), make_batch(3, 7, "left")
    expected = sequence_kernel(model, batch).toarray()
    np.testing.assert_allclose(
        sequence_kernel(Wrapper(model), batch).toarray(), expected, rtol=1e-7
    )


class TestBatches:
    def test_a_sequence_of_padding(self):
        rows = {"input_ids": [[0, 0, 0], [3, 4, 5]], "attention_mask": [[0] * 3, [1] * 3]}
        rows["labels"] = [[-100] * 3, [3, 4, 5]]
        assert sequence_kernel(make(llama), rows).toarray()[0, 0] == 0
        with pytest.raises(ValueError, match="All sequences are padding"):
            sequence_kernel(make(llama), rows | {"attention_mask": [[0] * 3] * 2})

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.uint16])
    def test_integers_of_any_size(self, dtype):
        model, batch = make(llama), make_batch(3, 6)
        expected = sequence_kernel(model, batch).toarray()
        found = sequence_kernel(model, batch | {"input_ids": batch["input_ids"].to(dtype)})
        np.testing.assert_array_equal(found.toarray(), expected)

    def test_boolean_labels_are_refused(self):
        batch = make_batch(2, 5)
        with pytest.raises(ValueError, match="must hold token ids"):
            sequence_kernel(make(llama), batch | {"labels": torch.ones(2, 5).bool()})


def test_gradients_are_those_of_the_parameters_that_count():
    """``jacobian`` is the oracle everywhere: it leaves out what is frozen, and so must we."""
    model = make(lora)
    assert jacobian(token_log_proba(model, BATCH)[:1], model).shape[1] == sum(
        p.numel() for p in model.parameters() if p.requires_grad
    )


def test_a_change_of_a_model_that_is_frozen():
    model, probes = make(llama), make_batch(2, 6)
    change = {name: 1e-3 * torch.randn_like(p) for name, p in model.named_parameters()}
    expected = predict_log_proba(model, probes, parameter_change=change).delta_response
    found = predict_log_proba(model.requires_grad_(False), probes, parameter_change=change)
    np.testing.assert_array_equal(found.delta_response, expected)


@pytest.mark.parametrize("values", [torch.zeros(3), torch.tensor([0.0, torch.nan])])
def test_log_probabilities_of_a_reference_that_are_wrong(values):
    batch = make_batch(4, 6) | {"ref_chosen_logps": torch.zeros(2), "ref_rejected_logps": values}
    with pytest.raises(ValueError, match=r"ref_rejected_logps must be finite and of shape \(2,\)"):
        sequence_kernel(make(llama), batch, objective="dpo")


def test_a_data_set_of_rows():
    datasets = pytest.importorskip("datasets")
    rows = [{"input_ids": list(range(1, k + 4)), "text": "words"} for k in range(5)]
    data, model = datasets.Dataset.from_list(rows), make(llama)
    expected = sequence_kernel(model, [{"input_ids": row["input_ids"]} for row in rows]).toarray()
    np.testing.assert_allclose(sequence_kernel(model, data).toarray(), expected, rtol=1e-12)
    selector = LanguageSelector(model, strategy="loss").fit(data)
    assert selector.scores_.shape == (5,)


class DynamicScale(nn.Module):
    """A scale that follows the length of the batch, kept in a buffer and in an attribute."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(50, 8), nn.Linear(8, 50)
        self.register_buffer("scale", torch.ones(()))
        self.longest = 8

    def forward(self, input_ids):
        length = input_ids.shape[1]
        if length > self.longest:
            self.scale.fill_(8 / length)
            self.longest = length
        elif length <= 8 < self.longest:
            self.scale.fill_(1.0)
            self.longest = 8
        return self.head(torch.tanh(self.embed(input_ids) * self.scale))


@pytest.mark.parametrize("lengths", [(6, 30), (30, 6)])
def test_a_model_that_keeps_state_in_two_places(lengths):
    torch.manual_seed(0)
    model = DynamicScale().double()
    probes, update = ({"input_ids": torch.randint(3, 50, (3, n))} for n in lengths)

    def gradient(batch, row):
        model.scale.fill_(1.0)
        model.longest = 8
        ids = batch["input_ids"][row]
        z = torch.log_softmax(model(ids)[:, :-1], 2).gather(2, ids[:, 1:, None]).sum()
        found = torch.autograd.grad(z, list(model.parameters()))
        return torch.cat([g.flatten() for g in found])

    step = gradient(update, slice(None)) / update["input_ids"][:, 1:].numel()
    expected = [float(0.1 * gradient(probes, slice(i, i + 1)) @ step) for i in range(3)]
    model.scale.fill_(1.0)
    model.longest = 8
    found = predict_log_proba(model, probes, update, learning_rate=0.1).delta_response
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_threads_with_model_and_reference_swapped():
    pair, batch = [make(llama), make(llama).requires_grad_(True)], make_batch(2, 6)

    def run(model, reference):
        for _ in range(5):
            sequence_kernel(model, batch, objective="dpo", reference=reference)

    threads = [threading.Thread(target=run, args=a, daemon=True) for a in (pair, pair[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


def test_threads_of_models_that_share_a_parameter():
    pair, batch, found = [make(Recurrent), make(Recurrent)], make_batch(2, 6), {0: [], 1: []}
    pair[1].embed.weight = pair[0].embed.weight
    expected = [sequence_kernel(model, batch).toarray() for model in pair]

    def run(k):
        found[k].extend(sequence_kernel(pair[k], batch).toarray() for _ in range(10))

    threads = [threading.Thread(target=run, args=(k,)) for k in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in (0, 1):
        assert len(found[k]) == 10
        assert all(np.array_equal(K, expected[k]) for K in found[k])
        assert all(p.requires_grad for p in pair[k].parameters())


@pytest.mark.parametrize("n", [49, 60, 100])
def test_tied_weights_in_double_precision(n):
    model, batch = make(tied_llama), make_batch(n, 6)
    K = sequence_kernel(model, batch).toarray()
    few = {key: value[: n - 1] for key, value in batch.items()}
    np.testing.assert_allclose(sequence_kernel(model, few).toarray(), K[:-1, :-1], rtol=1e-12)


def test_a_loss_that_depends_on_other_sequences():
    """Of sequences of which the first are of one length."""
    batch = make_batch(4, 9)
    batch["labels"] = batch["input_ids"].clone()
    for row, length in enumerate((8, 8, 3, 2)):
        batch["labels"][row, : 9 - length] = -100

    def weighted(logits, batch):
        n_tokens = (batch["labels"] != -100).sum(1, keepdim=True)
        return -token_losses(logits, batch) * n_tokens.double().mean() / n_tokens

    for call in (sequence_kernel, token_influence, predict_log_proba):
        options = {"learning_rate": 0.1} if call is predict_log_proba else {}
        batches = [batch] if call is sequence_kernel else [batch, batch]
        with pytest.raises(ValueError, match="depend on the rest of the batch"):
            call(make(llama), *batches, objective=weighted, **options)


def token_losses(logits, batch):
    labels = batch["labels"].clamp(min=0)[:, 1:, None]
    own = torch.log_softmax(logits[:, :-1], 2).gather(2, labels)[:, :, 0]
    return nn.functional.pad(own, (1, 0))


def test_a_data_set_that_never_ends():
    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return {"input_ids": torch.arange(1 + i % 3, 7), "meta": [[1, 2], [3]]}

    assert sequence_kernel(make(llama), Rows()).shape == (3, 3)
