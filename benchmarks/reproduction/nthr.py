"""What one step of GRPO does to the right answers of a group, and what sparing tokens changes.

A small Llama learns to add digits modulo ten after a few words, each one of two that mean the same,
until it is right about half of the time. Then, for each prompt whose eight answers are neither all
right nor all wrong, one step of gradient descent on the group's advantages, from the same weights:
as GRPO has them, with those of `nthr_advantages`, with as many tokens of wrong answers drawn at
random in place of the selected ones, and with the right answers alone. What counts is the change of
the right answers' mean log-probability.

    python -m benchmarks.reproduction.nthr --seeds 3
"""

import argparse
import copy

import numpy as np
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from sklearn_lpntk.language import nthr_advantages, nthr_scores

from .records import FOLDER, begun

PAD, PLUS, EQUALS, END, FIRST_WORD = range(10, 15)
WORDS, GROUP, RATE, GROUPS = 6, 8, 5e-4, 40
VOCABULARY, LENGTH = FIRST_WORD + 2 * WORDS, WORDS + 2  # words, the answer, and the end
KEYS = ("seed", "group")


def prompts(n, rng):
    """Sums and their prompts: "a + b ="."""
    terms = rng.integers(10, size=(n, 2))
    ids = np.full((n, 4), PLUS)
    ids[:, ::2], ids[:, -1] = terms, EQUALS
    return torch.from_numpy(terms.sum(1) % 10), torch.from_numpy(ids)


def solutions(sums, rng):
    """Words, of each pair one, the sum, and the end."""
    words = FIRST_WORD + 2 * np.arange(WORDS) + rng.integers(2, size=(len(sums), WORDS))
    end = torch.full((len(sums), 1), END)
    return torch.cat([torch.from_numpy(words), sums[:, None], end], 1)


def is_right(answers, mask, sums):
    """Whether an answer ends with its sum."""
    last = mask.sum(1) - 2  # before the end
    token = answers.gather(1, last.clamp(min=0)[:, None])[:, 0]
    ended = answers.gather(1, (mask.sum(1) - 1)[:, None])[:, 0] == END
    return (token == sums) & ended & (last >= 0)


def learn(seed):
    """A model that is right about half of the time."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 31])
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=32,
        bos_token_id=None, eos_token_id=END, pad_token_id=PAD,
    ))  # fmt: skip
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(4000):
        sums, prompt = prompts(64, rng)
        ids = torch.cat([prompt, solutions(sums, rng)], 1)
        logits = model(input_ids=ids, use_cache=False).logits[:, prompt.shape[1] - 1 : -1]
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, prompt.shape[1] :].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 20 == 19 and accuracy(model, rng) >= 0.5:
            break
    return model.eval(), rng


@torch.no_grad()
def sample(model, prompt, n, generator):
    """Answers drawn at temperature 1, and their masks: up to the end, which counts."""
    ids = prompt if len(prompt) == n else prompt.expand(n, -1)
    for _ in range(LENGTH):
        proba = torch.softmax(model(input_ids=ids, use_cache=False).logits[:, -1], 1)
        ids = torch.cat([ids, torch.multinomial(proba, 1, generator=generator)], 1)
    answers = ids[:, prompt.shape[1] :]
    ended = (answers == END).long()
    return answers, (ended.cumsum(1) - ended == 0).long()


def accuracy(model, rng, n=256):
    """Share of sampled answers that are right."""
    sums, prompt = prompts(n, rng)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    answers, mask = sample(model, prompt, n, generator)
    return float(is_right(answers, mask, sums).float().mean())


def forward(model, prompt, answers):
    """Hidden states, logits and log-probabilities of the answers' tokens."""
    ids = torch.cat([prompt.expand(len(answers), -1), answers], 1)
    out = model(input_ids=ids, output_hidden_states=True, use_cache=False)
    at = slice(prompt.shape[1] - 1, -1)
    logits = out.logits[:, at]
    own = torch.log_softmax(logits, 2).gather(2, answers[..., None])[..., 0]
    return out.hidden_states[-1][:, at], logits, own


def gain(model, prompt, answers, mask, right, advantages):
    """Change of the right answers' mean log-probability by one step on some advantages."""
    stepped = copy.deepcopy(model)
    _, _, own = forward(stepped, prompt, answers)
    before = (own * mask).sum(1)[right].mean().item()
    loss = -(advantages * own * mask).sum() / mask.sum()
    loss.backward()
    with torch.no_grad():
        for p in stepped.parameters():
            p -= RATE * p.grad
        _, _, own = forward(stepped, prompt, answers)
    return (own * mask).sum(1)[right].mean().item() - before


def run_group(model, sums, prompt, generator, rng):
    """Gains of the four kinds of advantages; None of a group that is all right or all wrong."""
    answers, mask = sample(model, prompt, GROUP, generator)
    right = is_right(answers, mask, sums)
    if right.all() or not right.any():
        return None
    rewards = right.float()
    with torch.no_grad():
        hidden, logits, _ = forward(model, prompt, answers)
    given = hidden, logits, answers, mask, rewards
    grpo = (rewards - rewards.mean()) / rewards.std()
    found = nthr_scores(*given)
    spared = nthr_advantages(grpo, *given)
    wrong = np.argwhere(((~right)[:, None] & mask.bool()).numpy())
    drawn = torch.zeros(mask.shape, dtype=torch.bool)
    for i, t in wrong[rng.permutation(len(wrong))[: int(found.selected.sum())]]:
        drawn[i, t] = True
    eta = 2 * abs(0.5 - float(rewards.mean()))
    spread = grpo[:, None].expand(mask.shape)
    kinds = {
        "grpo": spread,
        "nthr": spared,
        "random": torch.where(drawn, eta * spread, spread),
        "positive": spread.clamp(min=0),
    }
    scored = {k: gain(model, prompt, answers, mask, right, a) for k, a in kinds.items()}
    return scored | _selected(found.selected, answers, mask, right)


def _selected(selected, answers, mask, right):
    """Tokens of wrong answers, and those selected: words, and the digit that is wrong."""
    wrong = (~right)[:, None] & mask.bool()
    out = {}
    for name, where in (("words", answers >= FIRST_WORD), ("digits", answers < 10)):
        out[name] = int((wrong & where).sum())
        out[f"{name}_selected"] = int((selected & wrong & where).sum())
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", default=FOLDER / "nthr.jsonl")
    options, records = begun(parser, KEYS)
    for seed in range(options.seeds):
        if {"seed": seed, "group": GROUPS - 1} in records:
            continue
        model, rng = learn(seed)
        generator, done = torch.Generator().manual_seed(seed), 0
        print(f"seed {seed}: accuracy {accuracy(model, rng):.2f}", flush=True)
        while done < GROUPS:
            sums, prompt = prompts(1, rng)
            found = run_group(model, sums, prompt, generator, rng)
            if found is not None:
                row = {"seed": seed, "group": done, **found}
                if row not in records:
                    records.append(row)
                done += 1
