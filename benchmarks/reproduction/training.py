"""Train a net for a fixed number of steps; the validation set picks the checkpoint."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn

from ..nets import digit_net, lenet5, small_resnet

BATCH_SIZE = 64


@dataclass(frozen=True)
class Recipe:
    """A net and how it is trained: Adam at a constant rate, so that a short run is the
    beginning of a long one."""

    module: callable
    n_steps: int
    lr: float = 2e-3


RECIPES = {
    "digits": Recipe(digit_net, 400, 5e-3),
    "mnist": Recipe(lenet5, 600),
    "cifar": Recipe(small_resnet, 1_400),
}


def device():
    return "cuda" if torch.cuda.is_available() else "cpu"


def train(recipe, X, y, validation, seed, arms):
    """Train once; return for each arm its best checkpoint by validation accuracy.

    Parameters
    ----------
    arms : dict of name -> number of steps
        A shorter arm is the beginning of the longest.

    Returns
    -------
    best : dict of name -> (module in evaluation mode, step, validation accuracy)
    """
    torch.manual_seed(seed)
    module = recipe.module().to(device(), memory_format=torch.channels_last)
    X, y, X_val, y_val = (torch.as_tensor(a, device=device()) for a in (X, y, *validation))
    optimizer = torch.optim.Adam(module.parameters(), lr=recipe.lr, fused=True)
    best = dict.fromkeys(arms, (None, 0, -1.0))
    checkpoints = {s for n in arms.values() for s in checkpoint_steps(n)}
    for step, rows in enumerate(_batches(len(y), max(arms.values()), seed), start=1):
        module.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(X[rows]), y[rows]).backward()
        optimizer.step()
        if step in checkpoints:
            score = accuracy(module, X_val, y_val)
            better = [a for a, n in arms.items() if step <= n and score > best[a][2]]
            kept = copy.deepcopy(module) if better else None
            best |= dict.fromkeys(better, (kept, step, score))
    return best


def checkpoint_steps(n_steps, n_checkpoints=6):
    """Evenly spaced steps, the last among them."""
    return {int(np.ceil(n_steps * k / n_checkpoints)) for k in range(1, n_checkpoints + 1)}


def _batches(n, n_steps, seed):
    """Rows of every step: epoch after epoch, each in a new order."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.empty(0, dtype=torch.int64)
    for _ in range(n_steps):
        while len(left) < min(BATCH_SIZE, n):
            left = torch.cat([left, torch.randperm(n, generator=generator)])
        yield left[:BATCH_SIZE]
        left = left[BATCH_SIZE:]


@torch.no_grad()
def accuracy(module, X, y, batch_size=1000):
    """Share of right predictions, in evaluation mode."""
    module.eval()
    X, y = torch.as_tensor(X, device=device()), torch.as_tensor(y, device=device())
    hits = [
        (module(X[s : s + batch_size]).argmax(1) == y[s : s + batch_size]).sum().item()
        for s in range(0, len(y), batch_size)
    ]
    return sum(hits) / len(y)


def as_fitted_net(module):
    """A trained module as a fitted skorch net."""
    net = NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, train_split=None, device=device()
    )
    return net.initialize()
