"""What following samples costs, and what training copies as one saves.

Ratios of CPU time on one thread, both sides alternating in the same process, medians. Run
``make bench-dynamics``; ``--quick`` shrinks everything to see that it runs.
"""

import copy
import time

import torch
from nets import digit_net, lenet5
from skorch import NeuralNetClassifier
from timing import alternate, arguments
from torch import nn
from torch.func import functional_call, jacrev

from sklearn_lpntk._engine.session import borrowed
from sklearn_lpntk.dynamics import TrainingDynamics, predict_update
from sklearn_lpntk.dynamics._stacked import summed_losses


class Timed(TrainingDynamics):
    """Adds up the CPU time that its hooks take."""

    seconds = 0.0


def _timed(hook):
    def run(self, *args, **kwargs):
        start = time.process_time()
        try:
            return hook(self, *args, **kwargs)
        finally:
            Timed.seconds += time.process_time() - start

    return run


for _name in ("on_train_begin", "on_epoch_begin", "on_batch_end", "on_epoch_end", "on_train_end"):
    setattr(Timed, _name, _timed(getattr(TrainingDynamics, _name)))


def overhead(name, make, shape, n, repeats):
    """What following all samples adds to an ordinary fit, timed in the hooks themselves."""
    X, y = torch.rand(n, *shape), torch.arange(n) % 10
    shares = []
    for _ in range(repeats + 1):
        net = NeuralNetClassifier(
            make,
            criterion=nn.CrossEntropyLoss,
            batch_size=64,
            max_epochs=2,
            train_split=None,
            verbose=0,
            callbacks=[Timed],
        )
        Timed.seconds, start = 0.0, time.process_time()
        net.fit(X, y)
        total = time.process_time() - start
        shares.append((Timed.seconds / (total - Timed.seconds), Timed.seconds, total))
    share, own, total = sorted(shares[1:])[repeats // 2]
    print(
        f"| `TrainingDynamics`, {name}, batches of 64 | {share:.1%} of training | "
        f"{own:.3f} s of {total:.2f} s |",
        flush=True,
    )


def mlp(n_inputs, width):
    layers = nn.Linear(n_inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
    return nn.Sequential(*layers, nn.Linear(width, 4))


def loop(module, X, y, n_epochs, learning_rate):
    """One copy after the other, as plainly as it is written."""
    for x, label in zip(X, y, strict=True):
        own = copy.deepcopy(module)
        optimizer = torch.optim.SGD(own.parameters(), lr=learning_rate)
        for _ in range(n_epochs):
            optimizer.zero_grad()
            nn.functional.cross_entropy(own(x), label).backward()
            optimizer.step()


def stacked(n_inputs, width, n, repeats):
    """Single-sample nets trained as one batch, against a loop."""
    module = mlp(n_inputs, width)
    X, y = torch.rand(n, 1, n_inputs), torch.randint(0, 4, (n, 1))
    names = [name for name, _ in module.named_parameters()]

    def at_once():
        with borrowed(module):
            summed_losses(module, names, X, y, n_epochs=20, learning_rate=0.1)

    ours, theirs = alternate(repeats, at_once, lambda: loop(module, X, y, 20, 0.1))
    n_parameters = sum(p.numel() for p in module.parameters())
    print(
        f"| {n:,} nets of {n_parameters:,} parameters, 20 steps each, against a loop | "
        f"{theirs / ours:.1f} times faster | {ours:.2f} s against {theirs:.2f} s |",
        flush=True,
    )


def prediction(n, repeats):
    """One predicted step, against one real step, and against the Jacobians of all samples."""
    module = lenet5().eval()
    X, y = torch.rand(n, 1, 28, 28), torch.arange(n) % 10

    def step():
        loss = nn.functional.cross_entropy(module(X), y)
        torch.autograd.grad(loss, list(module.parameters()))

    def by_jacobians():
        parameters = {name: p.detach() for name, p in module.named_parameters()}
        jacobian = jacrev(lambda p: functional_call(module, p, (X,)))(parameters)
        loss = nn.functional.cross_entropy(module(X), y)
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        sum(j.flatten(2) @ g.flatten() for j, g in zip(jacobian.values(), gradients, strict=True))

    def predict():
        predict_update(module, X, y, X, learning_rate=0.1)

    ours, real, naive = alternate(repeats, predict, step, by_jacobians)
    case = f"`predict_update`, LeNet-5, {n} updates and {n} probes"
    print(f"| {case}, in gradients of the batch | {ours / real:.1f} | {ours:.3f} s |")
    print(
        f"| the same, against Jacobians by `jacrev` | {naive / ours:.0f} times faster | "
        f"{ours:.3f} s against {naive:.2f} s |",
        flush=True,
    )


def main():
    options = arguments(__doc__)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    small = options.quick
    repeats = options.repeats
    print("| what | measured | CPU time |\n|---|---|---|", flush=True)
    overhead("LeNet-5", lenet5, (1, 28, 28), 200 if small else 4000, repeats)
    overhead("a net of 6,058 parameters", digit_net, (1, 8, 8), 200 if small else 10_000, repeats)
    stacked(64, 16, 100 if small else 2000, repeats)
    stacked(784, 32, 20 if small else 500, repeats)
    stacked(784, 128, 10 if small else 200, repeats)
    prediction(8 if small else 128, repeats)


if __name__ == "__main__":
    main()
