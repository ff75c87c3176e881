"""Stand-ins by brute force, and the frame that names them as the caller does."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from sklearn_lpntk import RedundancyPruner
from sklearn_lpntk.kernels import empirical_ntk
from sklearn_lpntk.pruning._strategies import STRATEGIES

X, y = load_iris(return_X_y=True)
COMPARING = [name for name, strategy in STRATEGIES.items() if strategy.compares]
NAMES = [f"flower {i}" for i in range(150)]


def pruner(**options):
    options = {"random_state": 0, "prune_fraction": 0.6} | options
    return RedundancyPruner(LogisticRegression(max_iter=999), **options)


@pytest.mark.parametrize("strategy", COMPARING)
@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.6, 0.97])
def test_they_are_the_most_similar_kept_ones_of_their_class(strategy, fraction):
    found = pruner(strategy=strategy, prune_fraction=fraction).fit(X, y)
    frame = found.to_frame()
    K = empirical_ntk(found.net_, X, y).toarray().astype(float)
    scale = 1 / np.sqrt(K.diagonal())
    cosines = K * scale * scale[:, None]
    for i in range(150):
        if found.support_[i]:
            assert pd.isna(frame["stand_in"][i])
            assert np.isnan(frame["cosine"][i])
            continue
        candidates = found.support_ & (y == y[i])
        assert candidates[frame["stand_in"][i]]
        np.testing.assert_allclose(frame["cosine"][i], cosines[i, candidates].max(), atol=1e-5)
        np.testing.assert_allclose(cosines[i, frame["stand_in"][i]], frame["cosine"][i], atol=1e-5)


def test_an_auto_recipe_has_them_too():
    found = pruner(strategy="redundant", prune_fraction="auto").fit(X, y)
    frame = found.to_frame()
    assert frame["stand_in"].notna().sum() == len(found.pruned_indices_) > 0


def test_rows_are_named_as_the_caller_does():
    table = pd.DataFrame(X, index=NAMES)
    frame = pruner(strategy="redundant").fit(table, y).to_frame()
    assert frame.index.tolist() == NAMES
    pruned = frame[~frame["kept"]]
    assert set(pruned["stand_in"]) <= set(frame.index[frame["kept"]])
    assert set(frame["dominator"].dropna()) <= set(NAMES)
    by_labels = pruner(strategy="redundant").fit(X, pd.Series(y, index=NAMES)).to_frame()
    pd.testing.assert_frame_equal(by_labels, frame)


@pytest.mark.parametrize(
    ("strategy", "falling"),
    [("el2n", False), ("grand", False), ("redundant", True)],
)
def test_scores_have_the_direction_that_is_stated(strategy, falling):
    frame = pruner(strategy=strategy).fit(X, y).to_frame().sort_values("prune_rank")
    scores = frame["score"].to_numpy() * (-1 if falling else 1)
    if strategy == "redundant":  # the redundant ones first, each part by falling score
        first = frame["dominator"].notna().to_numpy()
        assert first[: first.sum()].all()
        for part in (scores[first], scores[~first]):
            assert (np.diff(part) >= 0).all()
    else:
        assert (np.diff(scores) >= 0).all()


def test_strategies_without_a_kernel_have_none():
    for strategy in set(STRATEGIES) - set(COMPARING):
        assert "stand_in" not in pruner(strategy=strategy).fit(X, y).to_frame()


def test_they_come_out_of_the_cache(tmp_path):
    first, again = (pruner(memory=str(tmp_path)).fit(X, y).to_frame() for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
