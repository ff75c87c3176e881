"""What can't be taken is refused by a message that says what was given and what to change."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sklearn_lpntk import FarthestPointClustering, LpNTKTransformer, RedundancyPruner
from sklearn_lpntk.dynamics import predict_update
from sklearn_lpntk.infinite import LabelRefurbisher, infinite_ntk_kernel
from sklearn_lpntk.kernels import lpntk_kernel

X = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
y = np.arange(24) % 3
TENSOR = torch.from_numpy(X)


def net():
    return nn.Linear(4, 3)


def quantised():
    module = nn.Sequential(nn.Linear(4, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch will move it elsewhere
        return torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8)


class TestNetworks:
    def test_complex_parameters(self):
        with pytest.raises(ValueError, match="with real parameters, two for each complex one"):
            lpntk_kernel(nn.Linear(4, 3, dtype=torch.complex64), X, y)

    def test_half_precision(self):
        with pytest.raises(ValueError, match=r"is torch.float16.*convert the network with .float"):
            lpntk_kernel(net().half(), X, y)

    def test_quantised(self):
        with pytest.raises(ValueError, match="A quantised one keeps none: pass the network as it"):
            lpntk_kernel(quantised(), X, y)

    def test_bfloat16_is_computed_in_a_copy(self):
        with pytest.warns(UserWarning, match="bfloat16"):
            assert lpntk_kernel(net().bfloat16(), X, y).dtype == np.float32

    def test_another_classifier(self):
        with pytest.raises(TypeError, match=r"net must be a skorch classifier.*or an nn.Module"):
            RedundancyPruner(net=LogisticRegression()).fit(X, y)


class TestInputs:
    @pytest.mark.parametrize(
        ("given", "match"),
        [
            (X + 1j, "split complex numbers into real and imaginary parts"),
            (TENSOR + 1j, r"Pass X\.real of a complex one"),
            (X.astype(str), "encode strings and categories"),
            ([[1.0, 2.0], [3.0]], "rows have different shapes.*Pad them"),
            (TENSOR.to_sparse(), r"X\.to_dense\(\) of a sparse one"),
        ],
        ids=["complex", "complex tensor", "strings", "ragged", "sparse tensor"],
    )
    def test_arrays(self, given, match):
        with pytest.raises(ValueError, match=match):
            lpntk_kernel(net(), given, y[: len(given)])

    def test_quantised_tensors(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given = torch.quantize_per_tensor(TENSOR, 0.1, 0, torch.qint8)
        with pytest.raises(ValueError, match=r"X\.dequantize\(\) of a quantised one"):
            lpntk_kernel(net(), given, y)

    def test_long_doubles_are_doubles(self):
        found = lpntk_kernel(net().double(), X.astype(np.longdouble), y)
        assert found.dtype == np.float64

    @pytest.mark.parametrize(
        "find",
        [
            lambda X: infinite_ntk_kernel(X),
            lambda X: LabelRefurbisher().fit(X, y),
            lambda X: FarthestPointClustering().fit(X),
        ],
        ids=["infinite", "refurbisher", "clustering"],
    )
    def test_several_inputs_where_samples_are_compared_in_one(self, find):
        with pytest.raises(ValueError, match=r"X has several inputs.*pass the one that counts"):
            find({"left": X, "right": X})

    def test_several_inputs_for_the_default_net(self):
        with pytest.raises(ValueError, match=r"several inputs \(left, right\): pass net="):
            RedundancyPruner().fit({"left": X, "right": X}, y)

    def test_several_inputs_for_another_estimator(self):
        pruner = RedundancyPruner(LogisticRegression(), strategy="random")
        with pytest.raises(TypeError, match="X is a dict, which LogisticRegression can't"):
            pruner.fit({"left": X, "right": X}, y)

    def test_a_table_for_a_net_of_the_users(self):
        frame = pd.DataFrame(X, columns=list("abcd")).assign(a=["x", "y"] * 12)
        with pytest.raises(ValueError, match=r"no numbers: 'a'.*Pipeline that ends in the net"):
            RedundancyPruner(LogisticRegression(), net=net()).fit(frame, y)

    @pytest.mark.parametrize(
        "find",
        [
            lambda D: lpntk_kernel(net(), D, y),
            lambda D: RedundancyPruner(net=net()).fit_resample(D, y),
            lambda D: infinite_ntk_kernel(D),
            lambda D: LabelRefurbisher().fit(D, y),
        ],
        ids=["kernel", "pruner", "infinite", "refurbisher"],
    )
    def test_a_loader_that_shuffles(self, find):
        loader = DataLoader(TensorDataset(TENSOR, torch.from_numpy(y)), shuffle=True)
        with pytest.raises(ValueError, match=r"order of its own.*pass its data set, X\.dataset"):
            find(loader)


LABELS = {
    "None": np.array([*y[:-1], None], dtype=object),
    "NaN": np.where(y == 2, np.nan, y),
    "None among strings": np.array(["a", "b", None] * 8, dtype=object),
    "NA": pd.Series(pd.array([1, 2, None] * 8, dtype="Int64")),
    "NaT": np.array(["2026-01-01", "NaT", "2026-01-02"] * 8, dtype="M8[D]"),
}
ENTRIES = {
    "kernel": lambda y: lpntk_kernel(net(), X, y),
    "update": lambda y: predict_update(net(), X, y, X, learning_rate=0.1),
    "pruner": lambda y: RedundancyPruner(LogisticRegression()).fit(X, y),
    "pruner of a dict": lambda y: RedundancyPruner(net=net()).fit_resample({"input": X}, y),
    "transformer": lambda y: LpNTKTransformer().fit(X, y),
    "refurbisher": lambda y: LabelRefurbisher().fit(X, y),
}


@pytest.mark.parametrize("entry", ENTRIES)
class TestLabels:
    @pytest.mark.parametrize("labels", LABELS)
    def test_missing(self, entry, labels):
        with pytest.raises(ValueError, match="missing labels"):
            ENTRIES[entry](LABELS[labels])

    def test_several_a_sample(self, entry):
        with pytest.raises(ValueError, match=r"argmax\(axis=1\)"):
            ENTRIES[entry](np.eye(3, dtype=int)[y])

    def test_a_regression_target(self, entry):
        with pytest.raises(ValueError, match=r"regression target.*KBinsDiscretizer"):
            ENTRIES[entry](X[:, 0])

    def test_too_few(self, entry):
        with pytest.raises(ValueError, match=r"shape \(24,\)|\[24, 5\]|has 5 labels"):
            ENTRIES[entry](y[:5])


def test_items_whose_labels_are_no_classes():
    for labels, match in ((torch.eye(3)[y], "pass y"), (TENSOR[:, 0], "KBinsDiscretizer")):
        with pytest.raises(ValueError, match=match):
            RedundancyPruner(net=net()).fit_resample(TensorDataset(TENSOR, labels))
