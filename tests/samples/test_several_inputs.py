"""Networks with several inputs, in every form that people have them: as one array split inside."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from skorch.helper import SliceDict
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import BatchEncoding

from sklearn_lpntk import RedundancyPruner
from sklearn_lpntk.kernels import lpntk_kernel
from tests.samples.test_doors import WITH_NET

N = 24
rng = np.random.default_rng(0)
LEFT, RIGHT = (rng.normal(size=(N, d)).astype(np.float32) for d in (4, 2))
X, y = np.hstack([LEFT, RIGHT]), np.arange(N) % 3
DICT = {"left": LEFT, "right": RIGHT}


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, left, right):
        return self.left(left) + torch.tanh(self.right(right))


class Split(Two):
    """The same on one array."""

    def forward(self, x):
        return super().forward(x[:, :4], x[:, 4:])


class Listed(Two):
    """The same as skorch calls it with several arrays."""

    def forward(self, x):
        return super().forward(*x)


class Items(Dataset):
    """Items as a tokenizer's, with labels in them or beside them, or tuples."""

    def __init__(self, kind):
        self.kind = kind

    def __len__(self):
        return N

    def __getitem__(self, i):
        inputs = {k: torch.from_numpy(v[i]) for k, v in DICT.items()}
        return {
            "pairs": (inputs, int(y[i])),
            "labels inside": inputs | {"labels": int(y[i])},
            "inputs alone": inputs,
            "tuples": (tuple(inputs.values()), int(y[i])),
        }[self.kind]


KINDS = {
    "dict": DICT,
    "tensors": {k: torch.from_numpy(v) for k, v in DICT.items()},
    "slice dict": SliceDict(**DICT),
    "batch encoding": BatchEncoding({k: torch.from_numpy(v) for k, v in DICT.items()}),
    "tuple": (LEFT, RIGHT),
    "tuple of tensors": (torch.from_numpy(LEFT), torch.from_numpy(RIGHT)),
    "pairs": Items("pairs"),
    "labels inside": Items("labels inside"),
    "inputs alone": Items("inputs alone"),
    "tuples": Items("tuples"),
    "loader": DataLoader(Items("labels inside"), batch_size=5),
}


def skorch_net(module, **options):
    options = {"criterion": nn.CrossEntropyLoss, "train_split": None, "verbose": 0} | options
    return NeuralNetClassifier(module, max_epochs=2, lr=0.1, **options)


def wanted(kind):
    """The module as a skorch net calls it with this kind of X."""
    return Listed if kind.startswith("tuple") else Two


@pytest.fixture(autouse=True)
def figures_closed():
    yield
    plt.close("all")


ONE_ARRAY = {"difficulty_correlation", "DifficultyDisplay"}  # they refuse several inputs
FUNCTIONS = {name: find for name, find in WITH_NET.items() if name not in ONE_ARRAY}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("network", ["module", "net"])
def test_all_forms_are_one(function, kind, network):
    find, given = FUNCTIONS[function], KINDS[kind]
    expected = find(Split(), X, y)
    net = Two() if network == "module" else skorch_net(wanted(kind)()).initialize()
    np.testing.assert_allclose(find(net, given, y), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_net_is_trained_pruned_for_and_retrained(kind):
    options = {"random_state": 0, "prune_fraction": 0.5, "strategy": "redundant"}
    expected = RedundancyPruner(net=skorch_net(Split), **options).fit(X, y)
    pruner = RedundancyPruner(net=skorch_net(wanted(kind)), **options).fit(KINDS[kind], y)
    np.testing.assert_array_equal(pruner.prune_order_, expected.prune_order_)
    found = pruner.predict_proba(KINDS[kind])
    np.testing.assert_allclose(found, expected.predict_proba(X), rtol=1e-4, atol=1e-5)
    kept, labels = pruner.fit_resample(KINDS[kind], y)
    np.testing.assert_array_equal(labels, y[pruner.sample_indices_])
    if kind not in ("loader", "batch encoding") and not isinstance(kept, Dataset):
        assert type(kept) is type(KINDS[kind])
        first = next(iter(kept.values())) if isinstance(kept, dict) else kept[0]
        np.testing.assert_array_equal(first, LEFT[pruner.sample_indices_])


@pytest.mark.parametrize("kind", ["pairs", "labels inside", "loader"])
def test_labels_of_the_items(kind):
    options = {"random_state": 0, "strategy": "herding"}
    own = RedundancyPruner(net=skorch_net(Two), **options).fit(KINDS[kind])
    given = RedundancyPruner(net=skorch_net(Two), **options).fit(KINDS[kind], y)
    np.testing.assert_array_equal(own.prune_order_, given.prune_order_)
    names = np.array(["a", "b", "c"])[y]
    renamed = RedundancyPruner(net=skorch_net(Two), **options).fit(KINDS[kind], names)
    np.testing.assert_array_equal(renamed.prune_order_, given.prune_order_)
    assert set(renamed.predict(KINDS[kind])) <= {"a", "b", "c"}


def test_a_grid_with_a_cache_over_several_inputs(tmp_path):
    model = RedundancyPruner(net=skorch_net(Two), random_state=0, memory=str(tmp_path))
    grid = {"prune_fraction": [0.2, 0.5], "strategy": ["herding", "random", "redundant"]}
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(SliceDict(**DICT), y)
    assert len(search.cv_results_["params"]) == 6


def test_different_lengths():
    with pytest.raises(ValueError, match=r"different lengths: \{'left': 24, 'right': 20\}"):
        lpntk_kernel(Two(), {"left": LEFT, "right": RIGHT[:20]}, y)
    with pytest.raises(ValueError, match="different lengths"):
        RedundancyPruner(net=skorch_net(Two)).fit({"left": LEFT, "right": RIGHT[:20]}, y)
