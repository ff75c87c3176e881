"""Batches as collators give them, and what is refused of batches and models."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_lpntk.language import predict_log_proba, sequence_kernel, token_influence
from sklearn_lpntk.language._batches import as_batch

from .models import POSITIONS, SIZES, VOCABULARY, Recurrent, gpt2, llama, make, make_batch

IDS = [[5, 6, 7, 8], [9, 10, 11, 0]]
MASK = [[1, 1, 1, 1], [1, 1, 1, 0]]
LABELS = [[-100, -100, 7, 8], [-100, -100, 11, -100]]


def encoding(data):
    return pytest.importorskip("transformers", minversion="5").BatchEncoding(data)


COMPLETION = [[0, 0, 1, 1], [0, 0, 1, 0]]
FORMS = {
    "tensors": {"input_ids": torch.tensor(IDS), "attention_mask": torch.tensor(MASK),
                "labels": torch.tensor(LABELS)},
    "lists": {"input_ids": IDS, "attention_mask": MASK, "labels": LABELS},
    "arrays": {"input_ids": np.array(IDS), "attention_mask": np.array(MASK, dtype=bool),
               "labels": np.array(LABELS, dtype=np.int32)},
    "completion mask": {"input_ids": IDS, "attention_mask": MASK, "completion_mask": COMPLETION},
    "prompts and completions": {
        "prompt_ids": [[5, 6], [9, 10]], "prompt_mask": [[1, 1], [1, 1]],
        "completion_ids": [[7, 8], [11, 0]], "completion_mask": [[1, 1], [1, 0]]},
    "rows": [{"input_ids": IDS[0], "labels": LABELS[0]},
             {"input_ids": IDS[1][:3], "labels": LABELS[1][:3]}],
    "rows of tensors": [
        {"input_ids": torch.tensor([IDS[0]]), "completion_mask": torch.tensor([COMPLETION[0]])},
        {"input_ids": torch.tensor([IDS[1][:3]]),
         "completion_mask": torch.tensor([COMPLETION[1][:3]])}],
    "with texts": {"input_ids": IDS, "attention_mask": MASK, "labels": LABELS,
                   "text": ["a", "b"], "length": 3},
}  # fmt: skip


@pytest.mark.parametrize("form", [*FORMS, "encoding"])
def test_forms(form):
    given = encoding(FORMS["lists"]) if form == "encoding" else FORMS[form]
    found = as_batch(given)
    assert found["input_ids"].tolist() == IDS
    assert found["attention_mask"].long().tolist() == MASK
    assert found["labels"].tolist() == LABELS


def test_without_labels_all_tokens_count_that_one_precedes():
    found = as_batch(
        {"input_ids": [[5, 6, 7], [0, 6, 7]], "attention_mask": [[1, 1, 1], [0, 1, 1]]}
    )
    assert found["labels"].tolist() == [[-100, 6, 7], [-100, -100, 7]]


def test_the_given_batch_stays_as_it_is():
    batch = make_batch(2, 5)
    batch["labels"] = batch["input_ids"].clone()
    given = copy.deepcopy(batch)
    sequence_kernel(make(Recurrent), batch)
    assert all(torch.equal(batch[key], given[key]) for key in batch)


def test_padding_and_company_make_no_difference():
    model, batch = make(llama), make_batch(3, 7)
    expected = sequence_kernel(model, batch).toarray()
    rows = [{key: value[i] for key, value in batch.items()} for i in range(3)]
    rows.append({"input_ids": [4] * 9, "attention_mask": [1] * 9, "labels": [-100] * 8 + [4]})
    found = sequence_kernel(model, rows).toarray()
    np.testing.assert_allclose(found[:3, :3], expected, rtol=1e-6)


def with_labels(labels):
    return {"input_ids": torch.tensor(IDS), "labels": torch.tensor(labels)}


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (torch.zeros(2, 3), TypeError, "must be a mapping"),
        ("text", TypeError, "must be a mapping"),
        ([], TypeError, "a list of nothing"),
        ([1, 2], TypeError, "a list of .'int'."),
        ({}, ValueError, r"the keys \[\]"),
        ({"labels": LABELS}, ValueError, "the keys"),
        ({"input_ids": [[1, 2], [3]]}, ValueError, "sequences of several lengths"),
        ({"input_ids": [1, 2, 3]}, ValueError, r"of \(3,\)"),
        ({"input_ids": torch.zeros(2, 0).long()}, ValueError, r"of \(2, 0\)"),
        ({"input_ids": torch.rand(2, 3)}, ValueError, "float32"),
        ([{"input_ids": [1, 2]}, {"ids": [1, 2]}], ValueError, "different keys"),
        ([{"input_ids": [[1, 2], [3, 4]]}], ValueError, "one sequence"),
        ({"input_ids": IDS, "attention_mask": MASK[:1]}, ValueError, "attention_mask.* shape"),
        ({"input_ids": IDS, "labels": [[1, 2]]}, ValueError, "labels.* shape"),
        (with_labels([[-100] * 4] * 2), ValueError, "no labelled token"),
        (with_labels([[5, -100, -100, -100]] * 2), ValueError, "no labelled token"),
        ({"input_ids": IDS, "labels": np.ones((2, 4))}, ValueError, "must hold token ids"),
        (with_labels([[-100, VOCABULARY, 1, 2]] * 2), ValueError, "labels from 1 to 50"),
        (with_labels([[-100, -5, 1, 2]] * 2), ValueError, "labels from -5"),
        ({"input_ids": [[1, VOCABULARY]]}, ValueError, "token ids from 1 to 50"),
        ({"input_ids": [[1, -1]]}, ValueError, "token ids from -1"),
        ({"input_ids": torch.ones(1, POSITIONS + 1).long()}, ValueError, "32 positions"),
    ],
)
@pytest.mark.parametrize("family", [llama, gpt2])
def test_batches_that_are_refused(family, batch, error, message):
    model = make(family)
    for call in (
        lambda: sequence_kernel(model, batch),
        lambda: token_influence(model, make_batch(2, 4), batch),
        lambda: predict_log_proba(model, batch, make_batch(2, 4), learning_rate=0.1),
    ):
        with pytest.raises(error, match=message):
            call()


def test_tokens_that_a_plain_module_does_not_know():
    with pytest.raises(ValueError, match="Token ids beyond its vocabulary"):
        sequence_kernel(make(Recurrent), {"input_ids": [[1, 77]]})


# -- models ---------------------------------------------------------------------------------


def encoder(transformers):
    sizes = {key: SIZES[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers",
                                         "num_attention_heads", "intermediate_size")}  # fmt: skip
    return transformers.BertForMaskedLM(transformers.BertConfig(**sizes))


def headless(transformers):
    return llama(transformers).model


def translator(transformers):
    sizes = {"vocab_size": VOCABULARY, "d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, num_heads=4))


def flagged_as_quantised(transformers):
    model = llama(transformers)
    model.is_quantized = True
    return model


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (encoder, "depend on later tokens"),
        (headless, "must return logits of shape"),
        (translator, "encoder-decoder"),
        (flagged_as_quantised, "is quantised"),
    ],
)
def test_models_that_are_refused(family, message):
    with pytest.raises(ValueError, match=message):
        sequence_kernel(make(family), make_batch(2, 5))


@pytest.mark.filterwarnings("ignore:(?s).*deprecated")
def test_quantised_layers_and_parameters_are_refused():
    model = make(Recurrent).float()
    try:
        quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, inplace=False)
    except (AttributeError, RuntimeError, NotImplementedError):
        pytest.skip("this torch can't quantise")
    with pytest.raises(ValueError, match="'head' is a Linear"):
        sequence_kernel(quantised, make_batch(2, 5))
    model.head.weight = nn.Parameter(model.head.weight.detach().to(torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"'head.weight' is torch.int8"):
        sequence_kernel(model, make_batch(2, 5))


def test_several_devices_are_refused():
    model = make(Recurrent)
    model.head.to("meta")
    with pytest.raises(ValueError, match="several devices"):
        sequence_kernel(model, make_batch(2, 5))


def test_no_module_is_refused():
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        sequence_kernel("gpt2", make_batch(2, 5))


def test_nan_is_named():
    model = make(Recurrent)
    model.head.bias.data[0] = torch.nan
    with pytest.raises(ValueError, match=r"'head\.bias' contains NaN"):
        sequence_kernel(model, make_batch(2, 5))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (Recurrent(VOCABULARY + 3).double(), "53 logits and the model 50"),
        (torch.zeros(4, 5), r"of shape \(4, 6\)"),
        (torch.full((4, 6), torch.nan), "NaN or infinity"),
        (None, "needs the reference model"),
        (nn.Linear(2, 2).double(), "reference: "),
    ],
)
def test_references_that_are_refused(reference, message):
    with pytest.raises(ValueError, match=message):
        sequence_kernel(make(Recurrent), make_batch(4, 6), objective="dpo", reference=reference)
