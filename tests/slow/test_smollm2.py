"""A real model: SmolLM2-135M-Instruct, which ``make language-model`` writes.

``make test-slow`` runs this; LANGUAGE_MODEL names another folder than the environment's.
"""

import copy
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="5")
FOLDER = os.environ.get("LANGUAGE_MODEL", os.path.join(sys.prefix, "smollm2"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.isdir(FOLDER), reason="no language model: make language-model"),
]

from sklearn_lpntk.language import (  # noqa: E402
    predict_log_proba,
    sequence_kernel,
    token_influence,
)

RATE = 1e-5
# 20 answers: the one that is learnt, its like, others of the same form, and unrelated ones
ANSWERS = [
    ("The capital of France is", " Paris"),
    ("France's capital city is called", " Paris"),
    ("The capital of Germany is", " Berlin"),
    ("The capital of France is", " Rome"),
    ("The capital of Italy is", " Rome"),
    ("The capital of Spain is", " Madrid"),
    ("The capital of Japan is", " Tokyo"),
    ("Paris is the capital of", " France"),
    ("The largest city of France is", " Paris"),
    ("The Eiffel Tower stands in", " Paris"),
    ("The capital of France is", " Lyon"),
    ("The capital of France is", " banana"),
    ("Berlin is the capital of", " Germany"),
    ("The capital of Norway is", " Oslo"),
    ("The opposite of hot is", " cold"),
    ("Water boils at one hundred", " degrees Celsius"),
    ("Once upon a time there was", " a little girl"),
    ("The sun rises in the", " east"),
    ("My favourite colour is", " blue"),
    ("She went to the market to buy", " bread and milk"),
]


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    return loaded.eval()


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(FOLDER)


def rows(tokenizer, pairs):
    found = []
    for prompt, answer in pairs:
        start, ids = tokenizer(prompt)["input_ids"], tokenizer(answer)["input_ids"]
        found.append({"input_ids": start + ids, "labels": [-100] * len(start) + ids})
    return found


def answer_log_proba(model, found):
    """Sums over answers' tokens, one answer at a time."""
    sums = []
    for row in found:
        ids, labels = torch.tensor(row["input_ids"]), torch.tensor(row["labels"])
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0, :-1].double()
        own = torch.log_softmax(logits, 1).gather(1, ids[1:, None])[:, 0]
        sums.append(float(own[labels[1:] != -100].sum()))
    return np.array(sums)


def test_the_kernel_is_that_of_gradients_summed_in_double_precision(model):
    torch.manual_seed(0)
    ids = torch.randint(100, 40_000, (3, 24))
    parameters = list(model.parameters())
    gradients = []
    for row in ids:
        logits = model(input_ids=row[None]).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, row[1:], reduction="sum")
        gradients.append(torch.autograd.grad(loss, parameters))
    expected = np.array(
        [[sum(float((a.double() * b).sum()) for a, b in zip(g, h)) for h in gradients]
         for g in gradients]
    )  # fmt: skip
    found = sequence_kernel(model, {"input_ids": ids}).toarray()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(found.diagonal(), expected.diagonal(), rtol=1e-5)


def test_a_step_is_predicted(model, tokenizer):
    """Within a tenth, and every sign, of answers that it changes at all."""
    probes, update = rows(tokenizer, ANSWERS), rows(tokenizer, ANSWERS[:1])
    prediction = predict_log_proba(model, probes, update, learning_rate=RATE)
    stepped = copy.deepcopy(model)
    batch = {key: torch.tensor([value]) for key, value in update[0].items()}
    stepped(**batch).loss.backward()
    with torch.no_grad():
        for p in stepped.parameters():
            p -= RATE * p.grad
    actual = answer_log_proba(stepped, probes) - answer_log_proba(model, probes)
    found = prediction.delta_response
    print(
        *(f"{p + a}: {x:+.5f} {y:+.5f}" for (p, a), x, y in zip(ANSWERS, found, actual)), sep="\n"
    )
    rounding = 2e-5  # of log-probabilities in single precision
    assert np.abs(actual).max() > 100 * rounding
    seen = np.abs(actual) > 2 * rounding
    assert seen.sum() >= 17
    assert (np.sign(found[seen]) == np.sign(actual[seen])).all()
    np.testing.assert_allclose(found, actual, rtol=0.1, atol=rounding)


def test_a_negative_step_squeezes(model, tokenizer):
    """On an unlikely token: nearly all of the vocabulary falls, and the likeliest rises."""
    ids = tokenizer("The capital of France is")["input_ids"]
    unlikely = tokenizer(" banana")["input_ids"][:1]
    update = {"input_ids": [ids + unlikely], "labels": [[-100] * len(ids) + unlikely]}

    def pushed_down(logits, batch):
        log_proba = torch.log_softmax(logits[:, :-1], 2)
        own = log_proba.gather(2, batch["labels"][:, 1:].clamp(min=0)[..., None])[..., 0]
        return torch.nn.functional.pad(own, (1, 0))

    stepped = copy.deepcopy(model)
    logits = stepped(input_ids=torch.tensor([ids])).logits[0, -1]
    before = torch.log_softmax(logits.detach().double(), 0)
    torch.log_softmax(logits, 0)[unlikely[0]].backward()
    with torch.no_grad():
        for p in stepped.parameters():
            p -= RATE * p.grad
        after = torch.log_softmax(stepped(input_ids=torch.tensor([ids])).logits[0, -1].double(), 0)
    best = int(before.argmax())
    assert after[unlikely[0]] < before[unlikely[0]]
    assert after[best] > before[best]
    assert (after < before).double().mean() > 0.9
    probes = {"input_ids": [ids + [best], ids + unlikely]}
    probes["labels"] = [[-100] * len(ids) + [best], [-100] * len(ids) + unlikely]
    found = predict_log_proba(model, probes, update, objective=pushed_down, learning_rate=RATE)
    assert found.delta_response[0] > 0 > found.delta_response[1]


def test_tokens_on_tokens(model, tokenizer):
    """A row and a column of it are predictions of steps."""
    observed, update = rows(tokenizer, ANSWERS[:4]), rows(tokenizer, ANSWERS[:1])
    influence = token_influence(model, observed, update)
    step = predict_log_proba(model, observed, update, learning_rate=RATE)
    sums = influence.matrix.mean(1) * RATE  # each of these answers is a token
    np.testing.assert_allclose(sums, step.delta_response, rtol=1e-3)
    assert influence.matrix.shape == (4, 1)


def measured(code):
    """Gigabytes that a process of its own takes at its peak."""
    script = f"""
import torch
torch.set_num_threads(1)
import transformers
model = transformers.AutoModelForCausalLM.from_pretrained({FOLDER!r}, dtype=torch.float32).eval()
from sklearn_lpntk.language import sequence_kernel
torch.manual_seed(0)
{code}
status = open("/proc/self/status").read().split()  # ru_maxrss counts the process before this one
print(int(status[status.index("VmHWM:") + 1]) / 2**20)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    return float(found.stdout.split()[-1])


LOOP = """
ids = torch.randint(100, 40_000, (8, 64))
parameters = list(model.parameters())
gradients = torch.empty(8, sum(p.numel() for p in parameters))
for i, row in enumerate(ids):
    logits = model(input_ids=row[None], use_cache=False).logits[0, :-1]
    loss = torch.nn.functional.cross_entropy(logits, row[1:], reduction="sum")
    found = torch.autograd.grad(loss, parameters)
    torch.cat([g.flatten() for g in found], out=gradients[i])
K = gradients @ gradients.T
"""
OURS = """
K = sequence_kernel(model, {"input_ids": torch.randint(100, 40_000, (n, 64))}).toarray()
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs its VmHWM")
def test_memory_beside_a_plain_loop():
    """How long they take is in the documentation: ``benchmarks/bench_language.py``."""
    loop, ours = measured(LOOP), measured(OURS.replace("(n,", "(8,"))
    print(f"8 sequences: {ours:.2f} of {loop:.2f} GB")
    assert ours <= 0.5 * loop
    assert measured(OURS.replace("(n,", "(32,")) < 8
