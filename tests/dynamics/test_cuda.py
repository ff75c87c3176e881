"""On a GPU, where there is one: predictions, stacks and callbacks are those of the CPU."""

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_lpntk.dynamics import (
    TrainingDynamics,
    difficulty_correlation,
    predict_forgetting,
    predict_update,
    train_test_similarity,
)

from ..nets import TRAPS

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.filterwarnings("ignore::sklearn_lpntk.exceptions.AutogradRuleWarning"),
]


@pytest.mark.parametrize("method", ["jvp", "ntk"])
@pytest.mark.parametrize("name", ["lenet5", "resnet18_after_training", "lstm", "attention"])
def test_a_step_is_that_of_the_cpu(name, method):
    net, X, n_logits = TRAPS[name]()
    y = np.arange(len(X)) % n_logits
    found = []
    for device in ("cpu", "cuda"):
        net, X = net.to(device), X.to(device)
        step = predict_update(net, X[:3], y[:3], X, learning_rate=0.1, method=method)
        found.append(step.delta_proba)
    scale = np.abs(found[0]).max()
    np.testing.assert_allclose(found[1], found[0], rtol=1e-8, atol=1e-8 * scale)


def test_training_is_that_of_the_cpu():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    X, y = torch.randn(200, 6).double(), torch.arange(200) % 3
    options = {"learning_rate": 0.1, "random_state": 0}
    found = []
    for device in ("cpu", "cuda"):
        net, X = net.to(device), X.to(device)
        events = predict_forgetting(net, X, y, n_iterations=30, **options)
        difficulty = difficulty_correlation(
            net, X, y, subset_sizes=[1, 20], n_epochs=5, **options
        ).subset_difficulty
        partners = train_test_similarity(net, X[:100], y[:100], X[100:], y[100:]).lpntk.helpful
        found.append((events.samples, events.actual, difficulty, partners))
    for cpu, gpu in zip(*found, strict=True):
        np.testing.assert_allclose(gpu, cpu, rtol=1e-8)


@pytest.mark.parametrize("evaluation_pass", [False, True])
def test_curves_are_those_of_the_cpu(evaluation_pass):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(50, 4)).astype(np.float32), np.arange(50) % 3
    curves = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        net = NeuralNetClassifier(
            nn.Linear(4, 3),
            criterion=nn.CrossEntropyLoss,
            batch_size=8,
            max_epochs=4,
            train_split=None,
            verbose=0,
            device=device,
            callbacks=[TrainingDynamics(sample_indices=[3, 5], evaluation_pass=evaluation_pass)],
        ).fit(X, y)
        curves.append(dict(net.callbacks_)["TrainingDynamics"])
    np.testing.assert_allclose(curves[1].losses_, curves[0].losses_, rtol=1e-3)
    np.testing.assert_array_equal(curves[1].correct_, curves[0].correct_)
