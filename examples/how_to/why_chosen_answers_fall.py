"""
DPO: why does the chosen answer's log-probability fall?
=======================================================

DPO makes the chosen answer likelier *than the rejected one*, and often both fall. A negative step
on an answer that is unlikely anyway takes little from it and pushes nearly every other token down,
too; what rises is what was likeliest before. That is squeezing [1]_. Here it is watched inside of
trl's ``DPOTrainer`` with a small model, and mended: SFT on both answers first, so that the rejected
one is not unlikely any more. (Needs the extra ``language``.)

.. [1] Ren and Sutherland, "Learning Dynamics of LLM Finetuning". arXiv:2407.10490
"""

import copy
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
    print(
        f"{(change < 0).float().mean():6.1%} fall, the likeliest by {change[before.argmax()]:+.4f}"
    )

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


def sft(model, kinds, steps, rate=2e-3):
    rows = [{"prompt": p, "completion": a} for k in kinds for p, a in zip(prompts, answers[k])]
    args = SFTConfig(**common, max_steps=steps, learning_rate=rate)
    given = {"train_dataset": Dataset.from_list(rows), "processing_class": tokenizer}
    SFTTrainer(model, args=args, **given).train()


def dpo(state, callbacks):
    model, reference = (make(state) for _ in range(2))
    keys = "chosen", "rejected"
    rows = [dict(zip(("prompt", *keys), row)) for row in zip(prompts, *(answers[k] for k in keys))]
    args = DPOConfig(**common, max_steps=80, learning_rate=3e-4, beta=0.1)
    given = {"train_dataset": Dataset.from_list(rows), "processing_class": tokenizer}
    DPOTrainer(model, ref_model=reference, args=args, callbacks=callbacks, **given).train()


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
state = copy.deepcopy(model.state_dict())

# %%
# DPO from there, with what every tenth step does to the answers predicted and measured:

probe, recorder = ResponseProbe(probes, every=4), UpdateRecorder(probes, every=10)
dpo(state, [probe, recorder])
print(recorder.summary())

# %%
# And the same after SFT on both answers:

model = make(state)
sft(model, ["chosen", "rejected"], steps=40)
extended = ResponseProbe(probes, every=4)
dpo(copy.deepcopy(model.state_dict()), [extended])

figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True, layout="constrained")
for ax, recorded, title in zip(axes, (probe, extended), ("DPO", "DPO after SFT on both")):
    ResponseDynamicsDisplay.from_probe(recorded, ax=ax)
    ax.set_title(title)
for name, one in (("DPO", probe), ("after SFT on both", extended)):
    first, last = (record.log_proba for record in (one.records[0], one.records[-1]))
    moved = {kind: float((last[kind] - first[kind]).mean()) for kind in first}
    print(name, {kind: round(change, 1) for kind, change in moved.items()})
