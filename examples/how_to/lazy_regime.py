"""
Is my network in the lazy regime?
=================================

A very wide network hardly moves while it learns: it stays its own linearisation, and kernel
regression predicts what training will give. How far a network of finite width is from that can be
measured, with its own data and for as long as it is trained.
"""

import copy

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from sklearn_lpntk.linearized import NTKRegressor

X, y = load_digits(return_X_y=True)
X = X / 16
X, X_test, targets, y_test = X[:100], X[100:600], np.eye(10)[y[:100]], y[100:600]
inputs, wanted = torch.as_tensor(X), torch.as_tensor(targets)

# %%
# Gradient descent on ``1/(2N) sum |f - y|^2`` for so many steps, and beside it the regression with
# the network's tangent kernel at the start, for the same ``time``: learning rate times steps.
# ``offset="net"`` adds the outputs at the start, ``alpha=0`` is no weight decay.

steps = 100, 400, 1000, 3000


def gaps(width):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10)).double()
    start, rate, done, found = copy.deepcopy(net), 0.5 / width, 0, []
    optimizer = torch.optim.SGD(net.parameters(), lr=rate)
    for n in steps:
        for _ in range(n - done):
            optimizer.zero_grad()
            (((net(inputs) - wanted) ** 2).sum() / (2 * len(X))).backward()
            optimizer.step()
        done = n
        with torch.no_grad():
            reached = net(torch.as_tensor(X_test)).numpy()
        linear = NTKRegressor(start, kernel="entk", offset="net", alpha=0.0, time=rate * n)
        predicted = linear.fit(X, targets).predict(X_test)
        found.append(np.linalg.norm(predicted - reached) / np.linalg.norm(reached))
    return found


widths = 16, 64, 256, 1024
found = np.array([gaps(width) for width in widths])
for width, row in zip(widths, found):
    print(f"width {width:4}: " + "  ".join(f"{n} steps {gap:.3f}" for n, gap in zip(steps, row)))

# %%
# The gap falls with the width, and for wide networks grows with training. Below about a tenth,
# kernel regression tells what training will give; above a third it does not, and queries, rankings
# and influences that rest on the linearisation at this point are guesses for the far end of
# training (they are still exact for the next steps).

ax = plt.subplots(layout="constrained")[1]
for width, row in zip(widths, found):
    ax.loglog(steps, row, "o-", label=f"width {width}")
ax.set(
    xlabel="steps of gradient descent",
    ylabel="distance from the linearisation / output",
    title="Wide networks stay lazy for longer",
)
ax.legend(frameon=False)
plt.show()
