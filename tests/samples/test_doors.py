"""Every public entry point by every kind of X and of network: what the plain array gives, or an
error that names the remedy.
"""

import re
import warnings

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch import NeuralNetClassifier
from skorch.helper import SliceDataset, SliceDict
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from sklearn_lpntk import FarthestPointClustering, LpNTKTransformer, RedundancyPruner
from sklearn_lpntk.active import LookaheadQuery, lookahead_scores
from sklearn_lpntk.dynamics import (
    difficulty_correlation,
    entk_convergence,
    predict_forgetting,
    predict_update,
    train_test_similarity,
)
from sklearn_lpntk.infinite import (
    ArchitectureSelector,
    InfiniteWidthNTK,
    LabelRefurbisher,
    RefurbishedClassifier,
    infinite_ntk_kernel,
)
from sklearn_lpntk.inspection import (
    DifficultyDisplay,
    LabelInteractionDisplay,
    PruningCurveDisplay,
    RelationsDisplay,
)
from sklearn_lpntk.kernels import empirical_ntk, entk_kernel, lpntk_kernel, pntk_kernel
from sklearn_lpntk.linearized import NTKClassifier, NTKRegressor, rank_networks

matplotlib.use("Agg")
pytestmark = pytest.mark.filterwarnings("ignore:.* labels were changed")
N = 24
X = np.round(np.random.default_rng(0).normal(size=(N, 4)) * 4) / 4  # exact in half precision
y = np.arange(N) % 3
TENSOR = torch.tensor(X, dtype=torch.float32)
FRAME = pd.DataFrame(X, columns=list("abcd"), index=[f"row {i}" for i in range(N)])


@pytest.fixture(autouse=True)
def figures_closed():
    yield
    plt.close("all")


class Plain(Dataset):
    """Items by number, of no torch class that is known."""

    def __len__(self):
        return N

    def __getitem__(self, i):
        if not 0 <= i < N:
            raise IndexError(i)
        return TENSOR[i], int(y[i])


class Duck:
    """Nothing but the two methods of a map-style data set."""

    def __len__(self):
        return N

    def __getitem__(self, i):
        if i >= N:
            raise AssertionError("it was iterated over instead of being indexed")
        return TENSOR[i], int(y[i])


ARRAYS = {
    "list": X.tolist(),
    "tensor": TENSOR,
    "big endian": X.astype(">f8"),
    "half": X.astype(np.float16),
    "objects": X.astype(object),
    "fortran": np.asfortranarray(X),
    "pandas": FRAME,
    "pandas nullable": FRAME.astype("Float64"),
    "pandas arrow": FRAME.astype("double[pyarrow]"),
    "pandas objects": FRAME.astype(object),
    "polars": pl.DataFrame(X, schema=list("abcd")),
    "pyarrow": pa.table({k: FRAME[k].to_numpy() for k in FRAME}),
    "sparse": sp.csr_array(X),
    "sparse COO": sp.coo_array(X),
    "data set": Plain(),
    "tensors": TensorDataset(TENSOR, torch.tensor(y)),
    "duck": Duck(),
    "subset": Subset(Plain(), range(N)),
    "slice data set": SliceDataset(Plain()),
    "loader": DataLoader(Plain(), batch_size=5),
    "tuple of one": (X,),
    "dict of one": {"x": X},
    "slice dict of one": SliceDict(x=X.astype(np.float32)),
}


def module():
    class Net(nn.Sequential):
        def forward(self, x):
            return super().forward(x)

    torch.manual_seed(0)
    return Net(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def skorch_net(**options):
    options = {"criterion": nn.CrossEntropyLoss, "train_split": None, "verbose": 0} | options
    return NeuralNetClassifier(module(), **options).initialize()


def pipeline():
    return make_pipeline(FunctionTransformer().fit(X), skorch_net())


def pruned(net, X, y):
    pruner = RedundancyPruner(net=net, random_state=0, prune_fraction=0.4)
    pruner.fit_resample(X, y)
    return pruner.prune_order_


def transformed(net, X, y):
    return LpNTKTransformer(net, output="kernel", random_state=0).fit_transform(X, y)


def looked_ahead(net, X, y):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*which are not looked at")
        return lookahead_scores(net, X, y, X, alpha=0.1)


def asked(net, X, y):
    query = LookaheadQuery(net, alpha=0.1, max_candidates=10, random_state=0).fit(X, y)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*which are not looked at")
        return query.update(X, y).query(X, 2, return_utilities=True)[1]


def frozen(net):
    return FrozenEstimator(net) if not isinstance(net, nn.Module) else net


# what needs a network: (network, X, y) -> numbers
WITH_NET = {
    "empirical_ntk": lambda net, X, y: empirical_ntk(net, X, y).toarray(),
    "lpntk_kernel": lpntk_kernel,
    "pntk_kernel": lambda net, X, y: pntk_kernel(net, X, X),
    "entk_kernel": lambda net, X, y: entk_kernel(net, X),
    "predict_update": lambda net, X, y: (
        predict_update(net, X, y, X, learning_rate=0.1).delta_logits
    ),
    "predict_forgetting": lambda net, X, y: (
        predict_forgetting(net, X, y, learning_rate=0.1, n_iterations=5, random_state=0).margins
    ),
    "train_test_similarity": lambda net, X, y: (
        train_test_similarity(net, X, y, X, y).lpntk.helpful_values
    ),
    "difficulty_correlation": lambda net, X, y: (
        difficulty_correlation(net, X, y, subset_sizes=[2], n_epochs=3, random_state=0).difficulty
    ),
    "RelationsDisplay": lambda net, X, y: RelationsDisplay.from_estimator(net, X, y).cosines,
    "DifficultyDisplay": lambda net, X, y: (
        DifficultyDisplay.from_estimator(net, X, y, n_epochs=3, random_state=0).difficulty
    ),
    "LpNTKTransformer": lambda net, X, y: transformed(frozen(net), X, y),
    "RedundancyPruner": lambda net, X, y: pruned(frozen(net), X, y),
    "NTKClassifier": lambda net, X, y: (
        NTKClassifier(frozen(net), alpha=0.1, offset="net").fit(X, y).decision_function(X)
    ),
    "NTKRegressor": lambda net, X, y: (
        NTKRegressor(frozen(net), alpha=0.1, kernel="entk").fit(X, np.eye(3)[y]).predict(X)
    ),
    "rank_networks": lambda net, X, y: list(
        rank_networks({"a": net}, X, y, alphas=[0.1, 1.0]).gcv.values()
    ),
    "lookahead_scores": lambda net, X, y: looked_ahead(net, X, y),
    "LookaheadQuery": lambda net, X, y: asked(net, X, y),
}
# what needs none: (X, y) -> numbers
WITHOUT = {
    "default pruner": lambda X, y: pruned(None, X, y),
    "default transformer": lambda X, y: transformed(None, X, y),
    "default NTKClassifier": lambda X, y: (
        NTKClassifier(random_state=0, alpha=0.1).fit(X, y).decision_function(X)
    ),
    "default NTKRegressor": lambda X, y: (
        NTKRegressor(random_state=0, alpha=0.1).fit(X, y).predict(X)
    ),
    "NTKClassifier of a kernel": lambda X, y: (
        NTKClassifier(InfiniteWidthNTK(), alpha=0.1).fit(X, y).decision_function(X)
    ),
    "retrained": lambda X, y: RedundancyPruner(random_state=0).fit(X, y).predict_proba(X),
    "random": lambda X, y: (
        RedundancyPruner(LogisticRegression(), strategy="random", random_state=0)
        .fit(X, y)
        .predict(X)
    ),
    "PruningCurveDisplay": lambda X, y: PruningCurveDisplay.from_estimator(
        RedundancyPruner(LogisticRegression(), random_state=0),
        X,
        y,
        strategies=["random"],
        fractions=[0.5],
        cv=2,
    ).scores["random"],
    "FarthestPointClustering": lambda X, y: FarthestPointClustering(4).fit(X).predict(X),
    "infinite_ntk_kernel": lambda X, y: infinite_ntk_kernel(X),
    "LabelRefurbisher": lambda X, y: LabelRefurbisher().fit(X, y).label_quality_,
    "RefurbishedClassifier": lambda X, y: (
        RefurbishedClassifier(LogisticRegression()).fit(X, y).predict(X)
    ),
    "ArchitectureSelector": lambda X, y: (
        ArchitectureSelector(
            [("a", InfiniteWidthNTK()), ("b", InfiniteWidthNTK(depth=2))], n_components=2
        )
        .fit(X, y)
        .scores_
    ),
    "LabelInteractionDisplay": lambda X, y: (
        LabelInteractionDisplay.from_estimator(InfiniteWidthNTK(), X, y).Z
    ),
    "entk_convergence": lambda X, y: (
        entk_convergence(
            lambda width: nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3)),
            X,
            y,
            [4, 8],
            random_state=0,
        ).same_label
    ),
}
REMEDY = r"(?i)pass |use |encode|fill|convert|\.toarray\(\)|SliceDataset|SliceDict|side by side"


def as_given_or_refused(find, given, expected):
    """Whether it is what the array gives; else it must be refused in so many words."""
    try:
        found = find(given)
    except (ValueError, TypeError) as error:
        if not re.search(REMEDY, str(error)):
            raise
        return False
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)
    return True


def numbers(found):
    return np.array(list(found.values())) if isinstance(found, dict) else found


TAKEN_BY_NETS = set(ARRAYS) - {"tuple of one", "dict of one", "slice dict of one"}


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("entry", WITH_NET)
@pytest.mark.parametrize("network", ["module", "net"])
def test_with_a_network(entry, kind, network):
    net = module() if network == "module" else skorch_net()
    expected = WITH_NET[entry](net, X, y)
    taken = as_given_or_refused(
        lambda given: WITH_NET[entry](net, given, y), ARRAYS[kind], expected
    )
    plain = kind in TAKEN_BY_NETS or network == "module" or kind.endswith("dict of one")
    several = "difficulty" in entry.lower() and kind not in TAKEN_BY_NETS
    assert taken == (plain and not several)


@pytest.mark.parametrize("entry", WITH_NET)
@pytest.mark.parametrize("make", [skorch_net, pipeline], ids=["net", "pipeline"])
def test_every_kind_of_network(entry, make):
    net = make()
    expected = WITH_NET[entry](module(), X, y)
    np.testing.assert_allclose(WITH_NET[entry](net, X, y), expected, rtol=2e-4, atol=2e-5)


ITEMS = {"data set", "tensors", "duck", "subset", "loader"}
REFUSED = {
    "random": ITEMS | {"slice data set"},
    "RefurbishedClassifier": ITEMS | {"slice data set"},
    "PruningCurveDisplay": ITEMS | {"slice data set"},
    "FarthestPointClustering": {"sparse", "sparse COO"},
}


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("entry", WITHOUT)
def test_without_a_network(entry, kind):
    def find(given):
        return numbers(WITHOUT[entry](given, y))

    # a truncated SVD keeps what tells samples apart, not their coordinates
    reduced = kind.startswith("sparse") and entry in {"default transformer", "retrained"}
    reduced |= kind.startswith("sparse") and entry.startswith("default NTK")
    reduced |= kind.startswith("sparse") and entry in {"default pruner", "LabelRefurbisher"}
    reduced |= kind.startswith("sparse") and entry == "RefurbishedClassifier"
    expected = find(X)
    if reduced:
        assert np.shape(find(ARRAYS[kind])) == np.shape(expected)
        return
    taken = as_given_or_refused(find, ARRAYS[kind], expected)
    one = kind.endswith("of one") and (entry, kind) != ("entk_convergence", "tuple of one")
    assert taken == (kind not in REFUSED.get(entry, ()) and not one)
