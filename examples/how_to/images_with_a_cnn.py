"""
Images with a CNN of your own: BatchNorm, early stopping, a schedule
====================================================================

Any skorch classifier scores the samples, with its callbacks, its own validation split and its
learning rate schedule. The module returns logits. Without ``estimator=`` the same network is
trained again on the kept rows.
"""

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn

from sklearn_lpntk import RedundancyPruner
from sklearn_lpntk.datasets import load_digit_images
from sklearn_lpntk.inspection import SamplePairsDisplay

X, y = load_digit_images()  # (1797, 1, 8, 8) float32
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)


class SmallNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(16 * 16, 10),  # logits: no softmax
        )

    def forward(self, x):
        return self.layers(x)


net = NeuralNetClassifier(
    SmallNet,
    criterion=nn.CrossEntropyLoss,  # skorch's default expects probabilities
    optimizer=torch.optim.AdamW,
    lr=0.01,
    max_epochs=25,
    batch_size=64,
    iterator_train__shuffle=True,  # skorch does not shuffle by itself
    train_split=ValidSplit(0.2, stratified=True, random_state=0),
    callbacks=[
        EarlyStopping(patience=6),
        LRScheduler(policy=torch.optim.lr_scheduler.StepLR, step_size=8, gamma=0.3),
    ],
    verbose=0,
)

# %%
# Half of the images go. ``budget="steps"`` allows as many steps as on all of them; early stopping
# may end the training sooner. The control keeps as many images at random.

for strategy in ("herding", "random"):
    pruner = RedundancyPruner(
        net=net, strategy=strategy, prune_fraction=0.5, budget="steps", random_state=0
    ).fit(X_train, y_train)
    n_epochs = len(pruner.estimator_.history)
    accuracy = pruner.score(X_test, y_test)
    print(f"{strategy:8s} {len(pruner.sample_indices_)} kept, {n_epochs} epochs: {accuracy:.3f}")

# %%
# Pruned images (above), and the kept ones that stand in for them:

pruner.set_params(strategy="herding").fit(X_train, y_train)
SamplePairsDisplay.from_estimator(pruner, X_train, y_train, kind="stand_in")
print(np.bincount(y_train[pruner.sample_indices_]))  # no class is emptied
