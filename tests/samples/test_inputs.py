"""What people bring as X gives what the plain array gives, or says what to bring instead."""

import types
from collections import UserDict

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from skorch.helper import SliceDict
from torch import nn

from sklearn_lpntk.kernels import lpntk_kernel

X = np.round(np.random.default_rng(0).normal(size=(12, 4)) * 4) / 4  # exact in half precision
y = np.arange(12) % 3
FRAME = pd.DataFrame(X, columns=list("abcd"), index=[f"row {i}" for i in range(12)])


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


KINDS = {
    "list": X.tolist(),
    "big_endian": X.astype(">f8"),
    "half": X.astype(np.float16),
    "objects": X.astype(object),
    "pandas": FRAME,
    "pandas_nullable": FRAME.astype("Float64"),
    "pandas_arrow": FRAME.astype("double[pyarrow]"),
    "pandas_objects": FRAME.astype(object),
    "polars": pl.DataFrame(X, schema=list("abcd")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_and_tables(kind, net):
    np.testing.assert_allclose(lpntk_kernel(net, KINDS[kind], y), lpntk_kernel(net, X, y), 1e-5)


def test_booleans_beside_numbers(net):
    frame = FRAME.assign(b=FRAME["b"] > 0, c=pd.array(FRAME["c"] > 0, dtype="boolean"))
    found = lpntk_kernel(net, frame, y)
    np.testing.assert_allclose(found, lpntk_kernel(net, frame.to_numpy(float), y), 1e-5)


def test_tables_of_integers_stay_integers():
    torch.manual_seed(0)
    words = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(12, 3))
    tokens = np.random.default_rng(0).integers(7, size=(12, 4))
    expected = lpntk_kernel(words, tokens, y)
    for dtype in (np.int64, np.uint8, "Int32", "int16[pyarrow]"):
        frame = pd.DataFrame(tokens).astype(dtype)
        np.testing.assert_array_equal(lpntk_kernel(words, frame, y), expected)


@pytest.mark.parametrize(
    ("column", "match"),
    [
        (pd.Categorical(list("xyz") * 4), r"no numbers: 'a' \(category\).*OneHotEncoder"),
        (list("xyz") * 4, r"no numbers: 'a'.*OneHotEncoder"),
        (pd.array([1, None] * 6, dtype="Int64"), "contains NaN"),
        (pd.date_range("2026-01-01", periods=12), r"no numbers: 'a' \(datetime64"),
    ],
    ids=["category", "text", "missing", "dates"],
)
def test_columns_that_are_no_numbers(column, match, net):
    with pytest.raises(ValueError, match=match):
        lpntk_kernel(net, FRAME.assign(a=column), y)


def test_columns_of_one_name(net):
    frame = FRAME.assign(b=[0, 1, 2] * 4).set_axis(["a", "a", "b", "b"], axis=1)
    expected = lpntk_kernel(net, frame.to_numpy(float), y)
    np.testing.assert_allclose(lpntk_kernel(net, frame, y), expected, 1e-5)
    text = FRAME.assign(a=["1"] * 12).set_axis(["a", "a", "b", "c"], axis=1)
    with pytest.raises(ValueError, match="no numbers: 'a'"):
        lpntk_kernel(net, text, y)


def test_masked_entries(net):
    np.testing.assert_array_equal(lpntk_kernel(net, np.ma.array(X), y), lpntk_kernel(net, X, y))
    with pytest.raises(ValueError, match="masked entries"):
        lpntk_kernel(net, np.ma.array(X, mask=X > 1), y)


class Wrapped(nn.Module):
    def __init__(self, net, how):
        super().__init__()
        self.net, self.how = net, how

    def forward(self, x):
        return self.how(self.net(x))


OUTPUTS = {
    "tuple": lambda z: (z, 1),
    "dict": lambda z: {"loss": None, "logits": z},
    "mapping": lambda z: UserDict(logits=z),
    "object": lambda z: types.SimpleNamespace(logits=z),
}


@pytest.mark.parametrize("given", [dict, UserDict, SliceDict])
@pytest.mark.parametrize("output", OUTPUTS)
def test_what_a_network_takes_and_returns(output, given, net):
    found = lpntk_kernel(Wrapped(net, OUTPUTS[output]), given(x=X), y)
    np.testing.assert_array_equal(found, lpntk_kernel(net, X, y))


def test_outputs_without_logits(net):
    with pytest.raises(ValueError, match="calls them 'logits'; for 4 samples it returned a dict"):
        lpntk_kernel(Wrapped(net, lambda z: {"scores": z}), X, y)
