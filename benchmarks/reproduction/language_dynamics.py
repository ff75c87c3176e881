"""How answers move while SmolLM2 is fine-tuned: SFT, DPO, and DPO after SFT on both answers.

The probing set of arXiv:2407.10490: chosen answers, their rephrases, rejected ones, answers to
other prompts, permuted words, and the tokens that were likeliest before training. Answers are put
as the model would put them, or as it would not. Trainers are trl's.

    python tools/language_model.py .venv/smollm2
    python -m benchmarks.reproduction.language_dynamics .venv/smollm2 --seeds 2
"""

import argparse
import copy
import tempfile

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from sklearn_lpntk.language.trl import ResponseProbe

from .records import FOLDER, begun

CAPITALS = """
France Paris Lyon; Germany Berlin Munich; Italy Rome Milan; Spain Madrid Barcelona; Portugal
Lisbon Porto; Austria Vienna Salzburg; Poland Warsaw Krakow; Greece Athens Patras; Sweden
Stockholm Malmo; Norway Oslo Bergen; Denmark Copenhagen Aarhus; Finland Helsinki Turku;
Ireland Dublin Cork; Belgium Brussels Antwerp; Hungary Budapest Szeged; Romania Bucharest
Cluj; Bulgaria Sofia Plovdiv; Croatia Zagreb Split; Serbia Belgrade Nis; Turkey Ankara
Istanbul; Russia Moscow Kazan; Ukraine Kyiv Odessa; Japan Tokyo Osaka; China Beijing
Shanghai; India Delhi Mumbai; Canada Ottawa Toronto; Mexico Mexico Cancun; Brazil Brasilia
Salvador; Chile Santiago Valparaiso; Peru Lima Cusco; Cuba Havana Camaguey; Egypt Cairo
Alexandria; Kenya Nairobi Mombasa; Ghana Accra Kumasi; Morocco Rabat Casablanca; Iran Tehran
Shiraz; Iraq Baghdad Basra; Israel Jerusalem Haifa; Thailand Bangkok Phuket; Vietnam Hanoi
Hue"""
# how a chosen, a rejected and a rephrased answer are put: as the model would, and as it would not
STYLES = {
    "plain": (
        " The capital of {country} is {city}.",
        " The capital of {country} is {wrong}.",
        " {city} is the capital city of {country}.",
    ),
    "odd": (
        " Well now, my dear friend, folks mostly tell me {city} hosts that parliament.",
        " Hmm, my dear friend, folks rarely tell me {wrong} hosts that parliament.",
        " My dear friend, well now, that parliament, folks tell me, sits in {city}.",
    ),
}
N_PROBES, BATCH = 8, 4
RUNS = {
    # style of the answers; first an SFT on some of them for so many steps, then DPO
    "sft": ("odd", "chosen", 40, 0),
    "dpo": ("odd", None, 0, 60),
    "extend": ("odd", "both", 40, 60),
    "dpo_plain": ("plain", None, 0, 60),
}
KEYS = ("run", "seed", "phase", "step")
RATES = {"sft": 1e-5, "dpo": 5e-6}


def pairs(style):
    """(prompt, dict of answers by kind) of each country."""
    facts = [fact.split() for fact in CAPITALS.split(";")]
    chosen, rejected, rephrased = STYLES[style]
    for k, (country, city, wrong) in enumerate(facts):
        own = {"country": country, "city": city, "wrong": wrong}
        other = dict(zip(("country", "city", "wrong"), facts[(k + 7) % len(facts)], strict=True))
        words = chosen.format(**own).split()
        yield (
            f"Question: What is the capital of {country}?\nAnswer:",
            {
                "chosen": chosen.format(**own),
                "rejected": rejected.format(**own),
                "rephrased": rephrased.format(**own),
                "other": chosen.format(**other),
                "permuted": " " + " ".join(np.random.default_rng(k).permutation(words)),
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


def common(folder, steps, rate, seed):
    return {
        "output_dir": folder, "report_to": "none", "use_cpu": True, "save_strategy": "no",
        "per_device_train_batch_size": BATCH, "max_steps": steps, "learning_rate": rate,
        "lr_scheduler_type": "constant", "logging_steps": 5, "seed": seed, "disable_tqdm": True,
        "gradient_checkpointing": False, "bf16": False,
    }  # fmt: skip


def sft(model, tokenizer, data, which, steps, seed, callbacks, folder):
    kinds = ("chosen", "rejected") if which == "both" else (which,)
    rows = [{"prompt": p, "completion": answers[kind]} for kind in kinds for p, answers in data]
    args = SFTConfig(**common(folder, steps, RATES["sft"], seed))
    given = {"train_dataset": Dataset.from_list(rows), "processing_class": tokenizer}
    SFTTrainer(model, args=args, callbacks=callbacks, **given).train()


def dpo(model, tokenizer, data, steps, seed, callbacks, folder):
    kinds = "chosen", "rejected"
    rows = [{"prompt": p, **{kind: answers[kind] for kind in kinds}} for p, answers in data]
    args = DPOConfig(**common(folder, steps, RATES["dpo"], seed), beta=0.1)
    given = {"train_dataset": Dataset.from_list(rows), "processing_class": tokenizer}
    reference = copy.deepcopy(model)
    DPOTrainer(model, ref_model=reference, args=args, callbacks=callbacks, **given).train()


def run(path, name, seed):
    """Records of one run: for each watched step, the mean log-probability of each kind."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(path)
    style, which, first, second = RUNS[name]
    data = list(pairs(style))
    order = np.random.default_rng([seed, 30]).permutation(len(data))
    data = [data[i] for i in order]
    probes, found = probes_of(tokenizer, data[:N_PROBES]), {}
    with tempfile.TemporaryDirectory() as folder:
        if first:
            probe = ResponseProbe(probes, every=5)
            sft(model, tokenizer, data, which, first, seed, [probe], folder)
            found["sft"] = probe.records
        if second:
            probe = ResponseProbe(probes, every=5)
            dpo(model, tokenizer, data, second, seed, [probe], folder)
            found["dpo"] = probe.records
    for phase, records in found.items():
        for record in records:
            means = {kind: round(float(v.mean()), 4) for kind, v in record.log_proba.items()}
            yield {"run": name, "seed": seed, "phase": phase, "step": record.step, **means}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="the folder that tools/language_model.py wrote")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--runs", nargs="*", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--out", default=FOLDER / "language_dynamics.jsonl")
    options, records = begun(parser, KEYS)
    for seed in range(options.seeds):
        for name in options.runs:
            phase = "sft" if RUNS[name][2] else "dpo"
            if dict(zip(KEYS, (name, seed, phase, 0), strict=True)) not in records:
                for row in list(run(options.model, name, seed)):
                    records.append(row)
