"""What an attack on the doors found: results that were silently wrong, and raw errors."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch
from joblib import Parallel, delayed
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn
from torch.utils.data import DataLoader, Dataset, default_collate

from sklearn_lpntk import LpNTKTransformer, RedundancyPruner
from sklearn_lpntk._samples.tables import columns_of_table
from sklearn_lpntk.infinite import LabelRefurbisher
from sklearn_lpntk.inspection import (
    LabelInteractionDisplay,
    RelationsDisplay,
    SamplePairsDisplay,
)
from sklearn_lpntk.kernels import empirical_ntk, lpntk_kernel, pntk_kernel

pytestmark = pytest.mark.filterwarnings("ignore:.* labels were changed")
rng = np.random.default_rng(0)
X, y = rng.normal(size=(24, 4)).astype(np.float32), np.arange(24) % 3


def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def net(kind=NeuralNetClassifier, layers=None, **options):
    options = {"criterion": nn.CrossEntropyLoss, "train_split": None, "verbose": 0} | options
    return kind(module() if layers is None else layers, max_epochs=2, **options)


class Tripled(NeuralNetClassifier):
    def infer(self, x, **fit_params):
        return super().infer(3 * x, **fit_params)


class Shifted(NeuralNetClassifier):
    shift_ = 7.0

    def infer(self, x, **fit_params):
        return super().infer(x - self.shift_, **fit_params)


class TestCaches:
    @pytest.mark.parametrize("keep", ["memory", "store"])
    def test_infer_is_part_of_the_key(self, keep, tmp_path):
        from sklearn_lpntk.exceptions import StoreMismatchError

        first, second = net(Tripled).initialize(), net(Shifted).initialize()
        empirical_ntk(first, X, y, **{keep: str(tmp_path)}).toarray()
        if keep == "store":
            with pytest.raises(StoreMismatchError):
                empirical_ntk(second, X, y, store=str(tmp_path))
            return
        found = empirical_ntk(second, X, y, memory=str(tmp_path)).toarray()
        np.testing.assert_array_equal(found, lpntk_kernel(second, X, y))

    def test_so_is_what_infer_uses(self, tmp_path):
        one = net(Shifted).initialize()
        for shift in (1.0, 2.0):
            one.shift_ = shift
            found = empirical_ntk(one, X, y, memory=str(tmp_path)).toarray()
            np.testing.assert_array_equal(found, lpntk_kernel(one, X, y))
            pruner = RedundancyPruner(
                LogisticRegression(),
                net=FrozenEstimator(one),
                strategy="el2n",
                memory=str(tmp_path),
                random_state=0,
            ).fit(X, y)
            fresh = pruner.set_params(memory=None).fit(X, y)._scores
            np.testing.assert_array_equal(pruner._scores, fresh)

    @pytest.mark.parametrize("name", ["_scale", "a__b_", "_A__scale"])
    def test_whatever_that_is_called(self, name, tmp_path):
        class Scaled(NeuralNetClassifier):
            def infer(self, x, **fit_params):
                return super().infer(vars(self)[name] * x, **fit_params)

        one = net(Scaled).initialize()
        for scale in (1.0, 3.0):
            vars(one)[name] = scale
            found = empirical_ntk(one, X, y, memory=str(tmp_path)).toarray()
            np.testing.assert_array_equal(found, lpntk_kernel(one, X, y))


class TestWrappers:
    def test_hooks_of_a_wrapper_are_not_left_out(self):
        wrapper = nn.DataParallel(module())
        wrapper.register_forward_hook(lambda module, args, out: 2 * out)
        with pytest.raises(ValueError, match="register them on the module inside"):
            lpntk_kernel(wrapper, X, y)

    def test_what_is_derived_from_a_wrapper_is_a_module(self):
        class Doubled(nn.DataParallel):
            def forward(self, x):
                return 2 * self.module(x)

        class Named(nn.Module):
            def __init__(self):
                super().__init__()
                self._orig_mod, self.head = module(), nn.Linear(3, 3)

            def forward(self, x):
                return self.head(self._orig_mod(x))

        inner = module()
        found = lpntk_kernel(Doubled(inner), X, y)
        np.testing.assert_allclose(found, 4 * lpntk_kernel(inner, X, y), rtol=1e-4, atol=1e-5)
        whole = Named()
        expected = lpntk_kernel(nn.Sequential(whole._orig_mod, whole.head), X, y)
        np.testing.assert_allclose(lpntk_kernel(whole, X, y), expected, rtol=1e-4, atol=1e-5)


def test_pairs_that_are_not_there():
    pruner = RedundancyPruner(net=module(), random_state=0)
    pruner.fit_resample(X, y)
    with pytest.raises(ValueError, match="support_ must have shape"):
        SamplePairsDisplay.from_estimator(pruner, X[:9], y[:9], kind="stand_in")
    with pytest.raises(ValueError, match="names rows from -1"):
        SamplePairsDisplay.from_predictions(X, [(0, -1)])
    with pytest.raises(ValueError, match="n_pairs must be an int"):
        SamplePairsDisplay.from_estimator(pruner, X, y, kind="stand_in", n_pairs=-1)


def test_threads_take_turns_with_an_infer_of_ones_own():
    one = net(Tripled, nn.Linear(4, 3)).initialize()
    names = ["weight", "bias", None] * 20
    expected = {name: lpntk_kernel(one, X, y, parameters=name) for name in names[:3]}
    work = [delayed(lpntk_kernel)(one, X, y, parameters=name) for name in names]
    for name, found in zip(names, Parallel(n_jobs=4, prefer="threads")(work), strict=True):
        np.testing.assert_array_equal(found, expected[name])
    assert all(p.requires_grad for p in one.module_.parameters())


def test_a_refit_leaves_nothing_of_the_fit_before():
    pruner = RedundancyPruner(LogisticRegression(), strategy="el2n", random_state=0).fit(X, y)
    columns = pruner.set_params(strategy="herding").fit(X, y).to_frame().columns
    assert "score" not in columns
    columns = pruner.set_params(strategy="random").fit(X[:12], y[:12]).to_frame().columns
    assert list(columns) == ["kept", "prune_rank"]


def test_booleans_stay_booleans():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(4, 3)

        def forward(self, x, mask):
            return self.layer(x * ~mask)

    given = {"x": X, "mask": X > 0}
    found = LpNTKTransformer(Masked(), output="kernel").fit_transform(given, y)
    np.testing.assert_allclose(found, lpntk_kernel(Masked(), given, y), rtol=1e-5)


class Data(Dataset):
    def __init__(self, item=lambda i: (X[i], int(y[i]))):
        self.item = item

    def __len__(self):
        return 24

    def __getitem__(self, i):
        return self.item(i)


def doubled(items):
    x, labels = default_collate(items)
    return 2 * x, labels


def test_a_loader_that_collates_in_its_own_way():
    loader = DataLoader(Data(), collate_fn=doubled)
    np.testing.assert_allclose(lpntk_kernel(module(), loader), lpntk_kernel(module(), 2 * X, y))
    found = RelationsDisplay.from_estimator(module(), loader, y, max_samples=20, random_state=0)
    again = RelationsDisplay.from_estimator(module(), 2 * X, y, max_samples=20, random_state=0)
    np.testing.assert_allclose(found.cosines, again.cosines, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="set iterator_train__collate_fn"):
        lpntk_kernel(net().initialize(), loader)
    with pytest.raises(ValueError, match="set iterator_train__collate_fn"):
        RedundancyPruner(net=net()).fit(loader)
    own = net(iterator_valid__collate_fn=doubled, iterator_train__collate_fn=doubled)
    found = lpntk_kernel(own.initialize(), loader)
    np.testing.assert_allclose(found, lpntk_kernel(module(), 2 * X, y))


def test_random_transforms_are_found():
    for seed in range(20):
        torch.manual_seed(seed)
        flips = Data(lambda i: (X[i] if torch.rand(()) < 0.5 else X[i][::-1].copy(), 0))
        with pytest.raises(ValueError, match="random transform"):
            lpntk_kernel(module(), flips, y)


def test_a_gap_is_no_random_transform():
    gaps = Data(lambda i: (np.where(i == 0, np.nan, X[i]), 0))
    with pytest.raises(ValueError, match="NaN or infinity"):
        lpntk_kernel(module(), gaps, y)


def test_another_module_beside_the_first():
    class Headed(NeuralNetClassifier):
        def initialize_module(self):
            super().initialize_module()
            self.head_ = nn.Linear(3, 3)
            return self

        def infer(self, x, **fit_params):
            return self.head_(super().infer(x, **fit_params))

    with pytest.raises(ValueError, match=r"besides its module \['head'\]"):
        lpntk_kernel(net(Headed).initialize(), X, y)


class TestPredictions:
    def test_gaps_that_were_none_in_fit(self):
        pruner = RedundancyPruner(random_state=0).fit(X, y)
        gaps = np.where(X > 1, np.nan, X)
        for given in (gaps, pd.DataFrame(gaps)):
            with pytest.raises(ValueError, match="contains NaN"):
                pruner.predict(given)

    def test_text_that_was_numbers_in_fit(self):
        pruner = RedundancyPruner(random_state=0).fit(pd.DataFrame(X, columns=list("abcd")), y)
        with pytest.raises(ValueError, match="no numbers: 'a'"):
            pruner.predict(pd.DataFrame(X, columns=list("abcd")).assign(a="x"))

    def test_sparse_rows_after_dense_ones(self):
        pruner = RedundancyPruner(random_state=0).fit(X, y)
        np.testing.assert_array_equal(pruner.predict(sp.csr_array(X)), pruner.predict(X))
        own = RedundancyPruner(net=net(), random_state=0).fit(sp.csc_array(X), y)
        np.testing.assert_array_equal(own.predict(sp.csr_array(X)), own.predict(X))

    def test_modes_come_back(self):
        frozen = FrozenEstimator(net().initialize())
        frozen.estimator.module_.train()
        LpNTKTransformer(frozen).fit(X, y).transform(X)
        assert frozen.estimator.module_.training


class TestPipelines:
    def test_displays_prepare_as_the_pruner_did(self):
        pruner = RedundancyPruner(net=make_pipeline(StandardScaler(), net()), random_state=0)
        pruner.fit(9 * X + 5, y)
        found = RelationsDisplay.from_estimator(pruner, 9 * X + 5, y).cosines
        scaled = StandardScaler().fit_transform(9 * X + 5)
        expected = RelationsDisplay.from_estimator(pruner.net_, scaled, y).cosines
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    def test_interactions_are_of_what_was_compared(self):
        frame = pd.DataFrame(X * [1, 10, 100, 1000], columns=list("abcd"))
        frame["e"] = ["u", "v"] * 12
        refurbisher = LabelRefurbisher(standardize=True).fit(frame, y)
        assert LabelInteractionDisplay.from_estimator(refurbisher, frame, y).Z.shape == (3, 3)

    def test_columns_by_name_of_a_table_of_numbers(self):
        steps = make_column_transformer((StandardScaler(), ["a", "b", "c", "d"]))
        frame = pd.DataFrame(X, columns=list("abcd"))
        pruner = RedundancyPruner(net=make_pipeline(steps, net()), random_state=0).fit(frame, y)
        assert pruner.predict(frame).shape == (24,)

    def test_texts(self):
        texts = [f"word{k % 3} other{k % 5}" for k in range(24)]
        dense = net(layers=nn.Linear(8, 3))
        pruner = RedundancyPruner(net=make_pipeline(TfidfVectorizer(), dense), random_state=0)
        assert pruner.fit(texts, y).predict(texts).shape == (24,)
        assert len(pruner.fit_resample(texts, y)[0]) == 19


class TestTables:
    def test_dates_far_away_and_of_arrow(self):
        days = np.array(["1970-01-03", "9999-12-31"], dtype="M8[s]")
        for frame in (
            pd.DataFrame({"d": days}),
            pa.table({"d": pa.array(days.astype("M8[D]"))}),
            pd.DataFrame({"d": days}).astype(pd.ArrowDtype(pa.date32())),
        ):
            np.testing.assert_array_equal(columns_of_table(frame)[0], [2, 2932896])

    def test_rows_of_mixed_kinds(self):
        found = columns_of_table([["a", 1.5], ["b", 2.5]])
        assert [column.dtype.kind for column in found] == ["O", "f"]

    def test_constant_columns_say_nothing(self):
        digits, labels = X, y
        constant = np.full((24, 50), 0.1)
        plain, wide = (
            LabelRefurbisher(standardize=True).fit(Z, labels)
            for Z in (digits, np.hstack([digits, constant]))
        )
        np.testing.assert_allclose(plain.label_quality_, wide.label_quality_, atol=1e-9)

    def test_a_dict_of_series_is_taken_by_position(self):
        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(2, 3)

            def forward(self, a, b):
                return self.layer(torch.stack([a, b], 1))

        order = np.random.default_rng(1).permutation(24)
        given = {"a": pd.Series(X[:, 0], index=order), "b": pd.Series(X[:, 1], index=order)}
        pruner = RedundancyPruner(net=Two(), random_state=0)
        kept, _ = pruner.fit_resample(given, y)
        np.testing.assert_array_equal(kept["a"], X[pruner.sample_indices_, 0])


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_hooks_run_once():
    layers, calls = nn.Linear(4, 3), []
    for register in (
        layers.register_forward_hook,
        layers.register_forward_pre_hook,
        layers.register_full_backward_pre_hook,
    ):
        register(lambda *args: calls.append(1))
    counts = []
    for kind in (NeuralNetClassifier, Tripled):
        calls.clear()
        pntk_kernel(net(kind, layers).initialize(), X)
        counts.append(len(calls))
    assert counts[1] <= counts[0] + 2 * 3  # the comparison with the net's own logits calls it, too


@pytest.mark.parametrize("given", [X.astype(float), pd.DataFrame(X), X.tolist()])
def test_an_infer_of_ones_own_takes_what_others_do(given):
    expected = lpntk_kernel(net(Tripled).initialize(), X, y)
    np.testing.assert_allclose(
        lpntk_kernel(net(Tripled).initialize(), given, y), expected, 1e-5, 1e-6
    )


def test_labels_that_are_an_index():
    pruner = RedundancyPruner(LogisticRegression(), random_state=0).fit(X, pd.Index(y))
    assert len(pruner.sample_indices_) == 19


def test_a_collator_of_dicts_trains(tmp_path):
    """As those of Hugging Face: the labels in the dict, padded to a batch."""

    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.words = nn.Embedding(9, 4, padding_idx=0)
            self.out = nn.Linear(4, 3)

        def forward(self, tokens):
            return self.out(self.words(tokens).sum(1))

    words = [rng.integers(1, 9, rng.integers(2, 6)) for _ in range(24)]
    data = Data(lambda i: {"tokens": words[i], "labels": int(y[i])})

    def collate(items):
        width = max(len(item["tokens"]) for item in items)
        padded = [np.pad(item["tokens"], (0, width - len(item["tokens"]))) for item in items]
        tokens = torch.tensor(np.stack(padded))
        return {"tokens": tokens}, torch.tensor([int(item["labels"]) for item in items])

    own = net(layers=Bag(), iterator_train__collate_fn=collate, iterator_valid__collate_fn=collate)
    options = {"random_state": 0, "prune_fraction": 0.25}
    pruner = RedundancyPruner(net=own, memory=str(tmp_path), **options).fit(data)
    again = RedundancyPruner(net=own, **options).fit(data)
    np.testing.assert_array_equal(pruner.prune_order_, again.prune_order_)


def test_a_pipeline_in_the_end_is_seeded():
    model = make_pipeline(StandardScaler(), net(layers=None, lr=0.1))
    model.steps[-1][1].set_params(module=nn.Linear, module__in_features=4, module__out_features=3)
    pruner = RedundancyPruner(model, random_state=0, strategy="random")
    first, again = (pruner.fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, again)
