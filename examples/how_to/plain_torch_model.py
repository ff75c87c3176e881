"""
A plain torch or Lightning model, and a DataLoader
==================================================

No skorch needed: every function takes an ``nn.Module`` (a LightningModule is one) and a
``DataLoader`` or a map-style ``Dataset``. Items are read a batch at a time, with their own
transforms, and their own labels count where y is None. A loader that shuffles is refused, since
its rows could not be told apart.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from sklearn_lpntk import RedundancyPruner
from sklearn_lpntk.dynamics import predict_update
from sklearn_lpntk.inspection import RelationsDisplay
from sklearn_lpntk.kernels import empirical_ntk


class Digits(Dataset):
    """Images with a transform, as any data set that you have."""

    def __init__(self):
        self.images, self.labels = load_digits(return_X_y=True)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        image = torch.tensor(self.images[i], dtype=torch.float32)
        return (image / 16 - 0.3) / 0.38, int(self.labels[i])


data = Digits()
train, test = Subset(data, range(1000)), Subset(data, range(1000, 1797))
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for _ in range(15):
    for x, y in DataLoader(train, batch_size=32, shuffle=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

# %%
# The kernel of all training samples, lazily. The model may be in training mode: it is borrowed in
# evaluation mode, and comes back as it was.

operator = empirical_ntk(model, DataLoader(train, batch_size=128))
print(operator.shape, model.training, operator.block([0, 1], [0, 1, 2]).round(1))
RelationsDisplay.from_predictions(operator.toarray(), [label for _, label in train])

# %%
# Which items to keep; ``Subset`` of your data set comes back, to train on with your own loop.

pruner = RedundancyPruner(net=model, prune_fraction=0.5)
kept, labels = pruner.fit_resample(train)
print(type(kept).__name__, len(kept), np.bincount(labels))

# %%
# What one step on the first 32 items would do to the test set, before it is taken:

y_test = np.array([label for _, label in test])
step = predict_update(model, Subset(train, range(32)), None, test, learning_rate=0.05)
change = step.delta_log_proba[np.arange(len(y_test)), y_test]
print(f"{(change > 0).mean():.0%} of the test items become more likely under their label")
