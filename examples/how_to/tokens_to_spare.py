"""
GRPO: which tokens of a wrong answer should be spared?
======================================================

GRPO pushes down every token of a wrong answer alike, and with it tokens that the right answers
need. Negative-token hidden rewards [1]_ tell which: those whose errors and hidden states are like
those of the right answers' tokens. (Needs the extra ``language``; ``make language-model`` writes
the model.)

.. [1] Deng et al., "On the Effect of Negative Gradient in Group Relative Deep Reinforcement
   Optimization". arXiv:2505.18830
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sklearn_lpntk.language import nthr_advantages, nthr_scores

folder = Path(sys.prefix) / "smollm2"
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(folder)

# %%
# A group of answers to one prompt, as GRPO draws them, and their rewards. The wrong ones reason
# mostly as the right ones do.

prompt = "Question: A box has 4 rows of 6 eggs, and 5 eggs are broken. How many are whole?\nAnswer:"
answers = {
    " There are 4 times 6, that is 24 eggs. Without the 5 broken ones, 19 are whole.": 1.0,
    " The box has 4 times 6, so 24 eggs. Take away 5, and 19 are whole.": 1.0,
    " There are 4 times 6, that is 24 eggs. Without the 5 broken ones, 21 are whole.": 0.0,
    " The box has 4 times 6, so 28 eggs. Take away 5, and 23 are whole.": 0.0,
}
start = tokenizer(prompt)["input_ids"]
rows = [tokenizer(answer)["input_ids"] for answer in answers]
length = max(map(len, rows))
ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
rewards = torch.tensor(list(answers.values()))

# %%
# One forward pass. Hidden states and logits at a position predict the next token, so those of the
# answers begin at the prompt's last.

with torch.no_grad():
    out = model(
        input_ids=torch.cat([torch.tensor([start] * len(rows)), ids], 1),
        attention_mask=torch.cat([torch.ones(len(rows), len(start)), mask], 1),
        output_hidden_states=True,
    )
at = slice(len(start) - 1, -1)
given = out.hidden_states[-1][:, at], out.logits[:, at], ids, mask, rewards

# %%
# The threshold is the least that a right answer's own tokens score on average, times ``beta``.

found = nthr_scores(*given, beta=0.5)
print(f"threshold {found.threshold:.0f}")
for g in range(2, 4):
    words = [tokenizer.decode([i]) for i in ids[g][mask[g].bool()]]
    marked = [f"[{w}]" if chosen else w for w, chosen in zip(words, found.selected[g])]
    print("".join(marked))

# %%
# Tokens in brackets keep only a part of their punishment: with half of the answers right, ``eta``
# is zero, and they are spared altogether.

advantages = (rewards - rewards.mean()) / rewards.std()
spared = nthr_advantages(advantages, *given, beta=0.5)
print(spared[2])

# %%
# Inside of trl it is a mixin::
#
#     from sklearn_lpntk.language.trl import NTHRTrainerMixin
#     from trl import GRPOTrainer
#
#     class Trainer(NTHRTrainerMixin, GRPOTrainer):
#         nthr_beta = 0.5
