"""
DPO: why does the chosen answer's log-probability fall?
=======================================================

DPO makes the chosen answer likelier *than the rejected one*, and often both fall. A negative step
on an answer that is unlikely anyway takes little from it and pushes nearly every other token down,
too; what rises is what was likeliest before. That is squeezing [1]_. Here it is watched inside of
trl's ``DPOTrainer`` with a small model. What SFT on both answers first, the remedy of [1]_, does to
SmolLM2 is on the page :doc:`/language`. (Needs the extra ``language``.)

.. [1] Ren and Sutherland, "Learning Dynamics of LLM Finetuning". arXiv:2407.10490
"""

import tempfile
import warnings

import datasets
import matplotlib.pyplot as plt
import numpy as np
import torch
import transformers
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from sklearn_lpntk.inspection import ResponseDynamicsDisplay
from sklearn_lpntk.language import squeeze
from sklearn_lpntk.language.trl import ResponseProbe, UpdateRecorder

warnings.simplefilter("ignore")  # of names that transformers drops
transformers.logging.set_verbosity_error()
datasets.disable_progress_bars()

# %%
# One context, one step on the logits. The more peaked the distribution, and the unlikelier the
# token that is pushed down, the more of the others fall with it:

for peakedness in (0.5, 2.0, 5.0):
    logits = peakedness * torch.randn(1000, generator=torch.Generator().manual_seed(0))
    before = torch.softmax(logits, 0)
    after = torch.softmax(squeeze(logits, int(before.argmin()), step=1.0), 0)
    change = (after / before).log()
    likeliest = change[before.argmax()]
    print(f"{(change < 0).float().mean():.1%} of all tokens fall, the likeliest: {likeliest:+.3f}")

# %%
# A small model and a language of sixty words, in which every prompt has a usual answer. Chosen and
# rejected answers are unusual, and begin alike.

rng = np.random.default_rng(0)
WORDS = [f"w{i:02d}" for i in range(60)]
vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", *WORDS])}
tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", padding_side="right"
)


def some(n):
    return [str(word) for word in rng.choice(WORDS, n)]


prompts, usual, begin = ([some(n) for _ in range(48)] for n in (3, 6, 3))
answers = {
    "usual": [" " + " ".join(words) for words in usual],
    "chosen": [" " + " ".join(words + some(3)) for words in begin],
    "rejected": [" " + " ".join(words + some(3)) for words in begin],
}
prompts = [" ".join(words) for words in prompts]


def probe_of(kind, n=16):
    rows = []
    for prompt, answer in zip(prompts[:n], answers[kind][:n]):
        start, ids = (tokenizer(text)["input_ids"] for text in (prompt, answer))
        rows.append({"input_ids": start + ids, "labels": [-100] * len(start) + ids})
    return rows


probes = {kind: probe_of(kind) for kind in ("chosen", "rejected")}
folder = tempfile.mkdtemp()
common = {
    "output_dir": folder, "report_to": "none", "use_cpu": True, "save_strategy": "no",
    "logging_strategy": "no", "disable_tqdm": True, "per_device_train_batch_size": 16,
    "lr_scheduler_type": "constant",
}  # fmt: skip


def train(trainer):
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()


def sft(model, kinds, steps, rate=2e-3):
    rows = [{"prompt": p, "completion": a} for k in kinds for p, a in zip(prompts, answers[k])]
    args = SFTConfig(**common, max_steps=steps, learning_rate=rate)
    given = {"train_dataset": Dataset.from_list(rows), "processing_class": tokenizer}
    train(SFTTrainer(model, args=args, **given))


def dpo(state, callbacks):
    model, reference = (make(state) for _ in range(2))
    keys = "chosen", "rejected"
    rows = [dict(zip(("prompt", *keys), row)) for row in zip(prompts, *(answers[k] for k in keys))]
    args = DPOConfig(**common, max_steps=80, learning_rate=3e-4, beta=0.1)
    given = {"train_dataset": Dataset.from_list(rows), "processing_class": tokenizer}
    train(DPOTrainer(model, ref_model=reference, args=args, callbacks=callbacks, **given))


def make(state=None):
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary), hidden_size=64, intermediate_size=128,
            num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
            max_position_embeddings=32, bos_token_id=None, eos_token_id=1, pad_token_id=0,
        )
    )  # fmt: skip
    if state is not None:
        model.load_state_dict(state)
    return model


model = make()
sft(model, ["usual"], steps=150)
sft(model, ["chosen"], steps=30)

# %%
# DPO from there, with what every tenth step does to the answers predicted and measured:

probe, recorder = ResponseProbe(probes, every=4), UpdateRecorder(probes, every=10)
dpo(model.state_dict(), [probe, recorder])
print(recorder.summary())
first, last = (record.log_proba for record in (probe.records[0], probe.records[-1]))
for kind in first:
    print(f"{kind:9s} {first[kind].mean():7.1f} before, {last[kind].mean():7.1f} after (nats)")

# %%
# The rejected answers fall by far the most, and the chosen ones, which training asks to rise, fall
# too: they begin with the same words.

ResponseDynamicsDisplay.from_probe(probe)

# %%
# The steps that were predicted, beside what they came to:

frame = recorder.to_frame()
ax = plt.subplots(layout="constrained")[1]
for kind, rows in frame.groupby("response"):
    ax.scatter(rows.predicted, rows.actual, s=8, label=kind)
ax.set(xlabel="predicted change (nats)", ylabel="actual change (nats)")
ax.axline((0, 0), slope=1, color="0.6", lw=0.8)
ax.legend()
