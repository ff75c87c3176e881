"""Which sequences of a mixture to fine-tune on: the part that matches the validation set, or not.

Eight hundred sequences of four languages (each with its own table of which word follows which), of
8 to 24 words; a validation set of 40 of one language; a small Llama that has seen a little of all.
Each rule selects as many as match (200); the model is then fine-tuned on these, for equally many
steps, and judged on 400 new sequences of the language. Controls: random, random with the lengths
that were selected, highest and lowest loss, longest; all matching ones are the ceiling. The task
was made on seed 90; the seeds of the page were run once.

    python -m benchmarks.reproduction.language_selection --seeds 5
"""

import argparse
import copy
import functools

import numpy as np
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from sklearn_lpntk.language import LanguageSelector
from sklearn_lpntk.language._batches import as_batch

from .records import FOLDER, begun, seeds_of

WORDS, LANGUAGES, FOLLOWERS = 64, 4, 3
N_EACH, N_VALIDATION, N_TEST, N_WARM = 200, 40, 400, 40
WARM_STEPS, STEPS, BATCH = 150, 100, 20
KEYS = ("seed", "rule")
OURS = {
    "gradient_similarity": {},
    "cosine": {"similarity": "cosine"},
    "sketch of 512": {"n_components": 512},
    "adam": {"optimizer": True},
    "herding": {"strategy": "herding"},
    "coverage": {"strategy": "coverage"},
    "redundant": {"strategy": "redundant"},
    "highest loss": {"strategy": "loss"},
    "longest": {"strategy": "length"},
    "random": {"strategy": "random"},
}
CONTROLS = ("lengths of gradient_similarity", "lowest loss", "all matching")


def tables(rng):
    """The words that follow each word, in each language."""
    return rng.integers(WORDS, size=(LANGUAGES, WORDS, FOLLOWERS))


def sentences(n, table, rng):
    """Sequences of one language, of several lengths."""
    found = []
    for length in rng.integers(8, 25, size=n):
        words = [int(rng.integers(WORDS))]
        while len(words) < length:
            words.append(int(rng.choice(table[words[-1]])))
        found.append({"input_ids": torch.tensor(words)})
    return found


def losses(model, rows):
    """Mean loss of the tokens of some sequences."""
    batch = as_batch(rows)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())


def trained(model, rows, steps, rng):
    """The model after some steps of AdamW, and its optimiser."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(steps):
        loss = losses(model, [rows[i] for i in rng.integers(len(rows), size=BATCH)])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model, optimiser


def begin(seed):
    """Candidates, the language of each, validation and test, and a model that knows a little."""
    rng = np.random.default_rng([seed, 32])
    parts = tables(rng)
    train = [row for table in parts for row in sentences(N_EACH, table, rng)]
    language = np.repeat(np.arange(LANGUAGES), N_EACH)
    order = rng.permutation(len(train))
    validation, test = (sentences(n, parts[0], rng) for n in (N_VALIDATION, N_TEST))
    warm = [row for table in parts for row in sentences(N_WARM, table, rng)]
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=WORDS, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=32,
        bos_token_id=None, eos_token_id=None,
    ))  # fmt: skip
    model, optimiser = trained(model, warm, WARM_STEPS, rng)
    return [train[i] for i in order], language[order], validation, test, model.eval(), optimiser


def selected(rule, train, language, validation, model, optimiser, seed):
    """Indices that a rule selects."""
    rng = np.random.default_rng([seed, 33])
    fit = functools.partial(_order, train, validation, model, seed)
    if rule == "all matching":
        return np.flatnonzero(language == 0)
    if rule == "lowest loss":
        return fit(strategy="loss")[::-1][:N_EACH]
    if rule == "lengths of gradient_similarity":
        lengths = np.array([len(row["input_ids"]) for row in train])
        kept = fit()[:N_EACH]
        return np.concatenate([
            rng.permutation(np.flatnonzero(lengths == length))[: (lengths[kept] == length).sum()]
            for length in np.unique(lengths[kept])
        ])  # fmt: skip
    options = OURS[rule] | ({"optimizer": optimiser} if "optimizer" in OURS[rule] else {})
    return fit(**options)[:N_EACH]


def _order(train, validation, model, seed, **options):
    return LanguageSelector(model, random_state=seed, **options).fit(train, validation).order_


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", default=FOLDER / "language_selection.jsonl")
    options, records = begun(parser, KEYS)
    for seed in seeds_of(options):
        train, language, validation, test, model, optimiser = begin(seed)
        with torch.no_grad():
            before = losses(model, test).item()
        for rule in (*OURS, *CONTROLS):
            row = {"seed": seed, "rule": rule}
            if row in records:
                continue
            kept = selected(rule, train, language, validation, model, optimiser, seed)
            rng = np.random.default_rng([seed, 34])
            tuned, _ = trained(copy.deepcopy(model), [train[i] for i in kept], STEPS, rng)
            with torch.no_grad():
                after = losses(tuned.eval(), test).item()
            precision = float((language[kept] == 0).mean())
            records.append(row | {"precision": precision, "loss": after, "before": before})
