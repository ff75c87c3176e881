"""How answers move while SmolLM2 is fine-tuned: SFT and then DPO, or SFT on both answers before it.

The probing set of arXiv:2407.10490: chosen answers, their rephrases, rejected ones, permuted words,
and the tokens that were likeliest before training. Questions ask what functions of Python's library
do; a chosen answer is the first line of its documentation, a rejected one that of another function.
Trainers are trl's.

    python tools/language_model.py .venv/smollm2
    python -m benchmarks.reproduction.language_dynamics .venv/smollm2 --seeds 2
"""

import argparse
import importlib
import tempfile
from itertools import pairwise

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from sklearn_lpntk.language.trl import ResponseProbe

from .records import FOLDER, begun, seeds_of

MODULES = [
    "bisect",
    "collections",
    "copy",
    "csv",
    "datetime",
    "difflib",
    "fnmatch",
    "functools",
    "glob",
    "heapq",
    "inspect",
    "itertools",
    "json",
    "logging",
    "math",
    "operator",
    "os",
    "os.path",
    "pathlib",
    "pickle",
    "platform",
    "random",
    "re",
    "shutil",
    "socket",
    "statistics",
    "string",
    "struct",
    "subprocess",
    "sys",
    "tempfile",
    "textwrap",
    "threading",
    "time",
    "types",
    "urllib.parse",
    "uuid",
    "zipfile",
]
N_PAIRS = 64
N_PROBES, BATCH = 8, 4
# the answers of the first phase, SFT, before DPO
RUNS = {"sft": "chosen", "extend": "both"}
STEPS = {"sft": 64, "dpo": 96}
KEYS = ("run", "seed", "phase", "step")
RATES = {"sft": 1e-5, "dpo": 1e-5}


def documented():
    """(module, function, first line of its documentation) of Python's own library."""
    for name in MODULES:
        module = importlib.import_module(name)
        for key, value in sorted(vars(module).items()):
            text = getattr(value, "__doc__", None)
            lines = text.strip().splitlines() if isinstance(text, str) else []
            words = lines[0].split() if lines else []
            named = key.isidentifier() and not key.startswith("_") and callable(value)
            if named and 6 <= len(words) <= 16 and lines[0].endswith(".") and "(" not in lines[0]:
                yield name, key, lines[0]


def pairs(seed):
    """(prompt, dict of answers by kind): what a function does, and what another one does."""
    rng = np.random.default_rng([seed, 30])
    found = list(documented())
    found = [found[i] for i in rng.permutation(len(found))[: N_PAIRS + 1]]
    for (module, function, own), (*_, other) in pairwise(found):
        words = own.split()
        yield (
            f"Question: What does {function} of Python's module {module} do?\nAnswer:",
            {
                "chosen": f" {own}",
                "rejected": f" {other}",
                "rephrased": f" In short, {own[0].lower()}{own[1:]}",
                "permuted": " " + " ".join(rng.permutation(words)),
            },
        )


def probes_of(tokenizer, data):
    """Batches by kind of answer."""
    found = {}
    for prompt, answers in data:
        start = tokenizer(prompt)["input_ids"]
        for kind, answer in answers.items():
            ids = tokenizer(answer)["input_ids"]
            row = {"input_ids": start + ids, "labels": [-100] * len(start) + ids}
            found.setdefault(kind, []).append(row)
    return found


def common(folder, phase, seed):
    return {
        "output_dir": folder, "report_to": "none", "use_cpu": True, "save_strategy": "no",
        "per_device_train_batch_size": BATCH, "max_steps": STEPS[phase],
        "learning_rate": RATES[phase], "lr_scheduler_type": "constant", "logging_steps": 5,
        "seed": seed, "disable_tqdm": True, "gradient_checkpointing": False, "bf16": False,
    }  # fmt: skip


def sft(model, tokenizer, data, which, seed, probe, folder):
    kinds = ("chosen", "rejected") if which == "both" else (which,)
    rows = [{"prompt": p, "completion": answers[kind]} for kind in kinds for p, answers in data]
    args = SFTConfig(**common(folder, "sft", seed))
    given = {"train_dataset": Dataset.from_list(rows), "processing_class": tokenizer}
    SFTTrainer(model, args=args, callbacks=[probe], **given).train()


def loaded(path, state=None):
    """The model, with other weights if given: a trainer wraps what it trained, copies included."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    if state is not None:
        model.load_state_dict(state)
    return model


def dpo(path, state, tokenizer, data, seed, probe, folder):
    kinds = "chosen", "rejected"
    rows = [{"prompt": p, **{kind: answers[kind] for kind in kinds}} for p, answers in data]
    args = DPOConfig(**common(folder, "dpo", seed), beta=0.1)
    given = {"train_dataset": Dataset.from_list(rows), "processing_class": tokenizer}
    model, reference = loaded(path, state), loaded(path, state)
    DPOTrainer(model, ref_model=reference, args=args, callbacks=[probe], **given).train()


def run(path, name, seed):
    """Records of one run: for each watched step, the mean log-probability of each kind."""
    model = loaded(path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    data = list(pairs(seed))
    probes, found = probes_of(tokenizer, data[:N_PROBES]), {}
    with tempfile.TemporaryDirectory() as folder:
        for phase in STEPS:
            probe = ResponseProbe(probes, every=8)
            if phase == "sft":
                sft(model, tokenizer, data, RUNS[name], seed, probe, folder)
            else:
                dpo(path, model.state_dict(), tokenizer, data, seed, probe, folder)
            found[phase] = probe.records
    for phase, records in found.items():
        for record in records:
            means = {kind: round(float(v.mean()), 4) for kind, v in record.log_proba.items()}
            yield {"run": name, "seed": seed, "phase": phase, "step": record.step, **means}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="the folder that tools/language_model.py wrote")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--runs", nargs="*", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--out", default=FOLDER / "language_dynamics.jsonl")
    options, records = begun(parser, KEYS)
    for seed in seeds_of(options):
        for name in options.runs:
            if dict(zip(KEYS, (name, seed, "dpo", STEPS["dpo"]), strict=True)) not in records:
                for row in list(run(options.model, name, seed)):
                    records.append(row)
