"""The Displays draw what they are given, with names and units, also into given axes."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import Normalize
from scipy.stats import pearsonr
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_lpntk import FarthestPointClustering, RedundancyPruner
from sklearn_lpntk.cluster import null_features
from sklearn_lpntk.datasets import load_digit_images
from sklearn_lpntk.dynamics import TrainingDynamics, difficulty_correlation
from sklearn_lpntk.infinite import (
    InfiniteWidthNTK,
    LabelRefurbisher,
    RefurbishedClassifier,
    label_interaction_matrix,
)
from sklearn_lpntk.inspection import (
    ClusterSizeDisplay,
    DifficultyDisplay,
    ErrorPathDisplay,
    FlippedLabelsDisplay,
    ForgettingDisplay,
    LabelInteractionDisplay,
    PruningCurveDisplay,
    RelationsDisplay,
    SamplePairsDisplay,
)
from sklearn_lpntk.kernels import empirical_ntk, lpntk_kernel


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def digits():
    X, y = load_digit_images()
    return X[:200], y[:200]


@pytest.fixture(scope="module")
def net(digits):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    return NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        lr=0.1,
        max_epochs=5,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        callbacks=[TrainingDynamics()],
    ).fit(*digits)


def words(ax):
    return ax.get_title(), ax.get_xlabel(), ax.get_ylabel()


def assert_named(ax):
    assert all(words(ax))
    ax.figure.canvas.draw()


class TestClusterSizes:
    def test_from_predictions(self):
        ax = plt.subplots()[1]
        null = [[0, 0, 1, 1, 2, -1], [0, 0, 0, 0, 0, 1]]
        display = ClusterSizeDisplay.from_predictions([0, 0, 1, 0, 2, -1], null_labels=null, ax=ax)
        assert display.ax_ is ax
        assert display.sizes.tolist() == [3, 1, 1]
        assert display.null_sizes.tolist() == [[2, 2, 1], [5, 1, 0]]
        assert ax.lines[0].get_ydata().tolist() == [3, 1, 1]
        assert ax.get_xscale() == ax.get_yscale() == "log"
        assert "60%" in ax.get_legend().get_texts()[0].get_text()
        assert_named(ax)

    @pytest.mark.parametrize("affinity", ["linear", "cosine", "precomputed"])
    def test_from_estimator(self, affinity, digits):
        X = digits[0].reshape(200, -1)
        X = X @ X.T if affinity == "precomputed" else X
        clustering = FarthestPointClustering(20, affinity=affinity)
        display = ClusterSizeDisplay.from_estimator(clustering, X, n_repeats=2, random_state=0)
        np.testing.assert_array_equal(display.sizes, clustering.fit(X).cluster_sizes_)
        assert display.null_sizes.shape == (2, 20)
        assert (display.null_sizes.sum(axis=1) == 200).all()
        again = ClusterSizeDisplay.from_estimator(clustering, X, n_repeats=2, random_state=0)
        np.testing.assert_array_equal(again.null_sizes, display.null_sizes)

    def test_errors(self, digits):
        X = digits[0].reshape(200, -1)
        with pytest.raises(ValueError, match="null model is one of inner products"):
            ClusterSizeDisplay.from_estimator(FarthestPointClustering(), X)
        with pytest.raises(TypeError, match="must be a FarthestPointClustering"):
            ClusterSizeDisplay.from_estimator(LogisticRegression(), X)
        for labels in ([], [-1, -1], ["a", "b"], [0.5, 1.0]):
            with pytest.raises(ValueError, match="labels must be integers"):
                ClusterSizeDisplay.from_predictions(labels)
        with pytest.raises(ValueError, match="n_repeats must be"):
            ClusterSizeDisplay.from_estimator(
                FarthestPointClustering(affinity="linear"), X, n_repeats=0
            )
        with pytest.raises(ValueError, match=r"labels must have shape \(n_samples,\)"):
            ClusterSizeDisplay.from_predictions([[0, 1]])


class TestNullModel:
    def test_it_keeps_norms_and_the_spread_of_cosines(self):
        rng = np.random.default_rng(0)
        X = rng.normal(size=(400, 12)) * rng.uniform(0.5, 3, size=(400, 1)) + 0.8
        K = X @ X.T
        Z = null_features(K, random_state=0)
        np.testing.assert_allclose(np.linalg.norm(Z, axis=1), np.linalg.norm(X, axis=1))

        def cosines(K):
            scale = np.sqrt(K.diagonal())
            return (K / np.outer(scale, scale))[np.triu_indices(400, 1)]

        found, expected = cosines(Z @ Z.T), cosines(K)
        assert abs(found.mean() - expected.mean()) < 0.02
        assert abs(found.std() / expected.std() - 1) < 0.1

    def test_of_an_operator(self, digits, net):
        operator = empirical_ntk(net, *digits)
        Z = null_features(operator, random_state=0)
        np.testing.assert_allclose((Z**2).sum(axis=1), operator.diag(), rtol=1e-5)

    def test_errors(self):
        with pytest.raises(ValueError, match="square"):
            null_features(np.zeros((3, 2)))
        with pytest.raises(ValueError, match="Only 2 samples"):
            null_features(np.diag([1.0, 1.0, 0.0]))


class TestDifficulty:
    def test_from_predictions(self):
        x, other = np.array([1.0, 2, 3, np.nan, 5]), np.array([2.0, 1, 5, 6, np.nan])
        display = DifficultyDisplay.from_predictions(x, other, y=[0, 1, 0, 1, 0])
        assert display.correlation == pearsonr([1, 2, 3], [2, 1, 5]).statistic
        assert f"ρ = {display.correlation:.2f}" in display.ax_.get_title()
        assert len(display.ax_.collections) == 2
        assert "nats" in display.ax_.get_xlabel()
        assert_named(display.ax_)
        ax = plt.subplots()[1]
        assert display.plot(ax, color="k", s=3).ax_ is ax

    def test_from_estimator(self, digits):
        X, y = digits
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        options = {"n_epochs": 5, "random_state": 0}
        display = DifficultyDisplay.from_estimator(module, X, y, subset_size=10, **options)
        found = difficulty_correlation(module, X, y, subset_sizes=[10], **options)
        np.testing.assert_allclose(display.correlation, found.correlation[0])

    def test_errors(self):
        with pytest.raises(ValueError, match="Only 1 samples have both"):
            DifficultyDisplay.from_predictions([1, np.nan], [1, 2])
        with pytest.raises(ValueError, match=r"other must have shape \(2,\)"):
            DifficultyDisplay.from_predictions([1, 2], [1, 2, 3])


class TestForgetting:
    def test_from_predictions(self):
        display = ForgettingDisplay.from_predictions([0, 0, 2, 0, 1], [0, 0, 0, 1, 0])
        heights = [bar.get_height() for bar in display.ax_.patches]
        assert heights == [2, 1, 1, 1]  # none, one, two events; never learned
        assert "never" in display.ax_.get_xticklabels()[-1].get_text()
        assert "40%" in display.ax_.get_title()
        assert_named(display.ax_)

    def test_from_estimator(self, net):
        recorded = dict(net.callbacks_)["TrainingDynamics"]
        for source in (net, recorded):
            display = ForgettingDisplay.from_estimator(source)
            np.testing.assert_array_equal(display.forgetting_counts, recorded.forgetting_counts_)
            np.testing.assert_array_equal(display.never_learned, recorded.never_learned_)

    def test_errors(self):
        with pytest.raises(ValueError, match="recorded no forgetting events"):
            ForgettingDisplay.from_estimator(LogisticRegression())
        with pytest.raises(NotFittedError, match="has recorded no epoch"):
            ForgettingDisplay.from_estimator(TrainingDynamics())
        for counts in ([-1, 2], [0.5], []):
            with pytest.raises(ValueError, match="one count of 0 or more"):
                ForgettingDisplay.from_predictions(counts)


class TestPruningCurve:
    def test_from_predictions(self):
        scores = {"herding": [[0.9, 0.8], [0.7, np.nan]], "random": [[0.6, 0.6], [0.5, 0.3]]}
        display = PruningCurveDisplay.from_predictions([0.9, 0.5], scores, full_scores=[0.95])
        assert display.fractions.tolist() == [0.5, 0.9]
        lines = {line.get_label(): line for line in display.ax_.lines}
        np.testing.assert_allclose(lines["herding"].get_ydata(), [0.7, 0.85])
        assert lines["herding"].get_linestyle() == "-"
        assert lines["random"].get_linestyle() == "--"
        assert "standard error" in display.ax_.get_title()
        assert_named(display.ax_)
        assert len(display.plot(band=None).ax_.collections) == 0

    def test_from_estimator(self, digits):
        X, y = digits[0].reshape(200, -1), digits[1]
        pruner = RedundancyPruner(LogisticRegression(max_iter=2000), random_state=0)
        options = {"strategies": ["k_center_input", "random"], "fractions": [0.8, 0.5], "cv": 2}
        alone = PruningCurveDisplay.from_estimator(pruner, X, y, **options)
        assert alone.fractions.tolist() == [0.5, 0.8]
        assert alone.full_scores.shape == (2,)
        expected = [
            pruner.set_params(strategy="random", prune_fraction=0.8)
            .fit(X[a], y[a])
            .score(X[b], y[b])
            for a, b in _two_folds(X, y)
        ]
        np.testing.assert_allclose(alone.scores["random"][1], expected)
        piped = PruningCurveDisplay.from_estimator(
            make_pipeline(StandardScaler(), pruner), X, y, **options
        )
        assert set(piped.scores) == {"random", "k_center_input"}

    def test_errors(self, digits):
        with pytest.raises(ValueError, match=r"scores\['a'\] must have shape \(2, n_repeats\)"):
            PruningCurveDisplay.from_predictions([0.1, 0.2], {"a": [[1.0]]})
        with pytest.raises(ValueError, match="band must be"):
            PruningCurveDisplay.from_predictions([0.1], {"a": [[1.0]]}, band="all")
        with pytest.raises(TypeError, match="RedundancyPruner or a Pipeline"):
            PruningCurveDisplay.from_estimator(LogisticRegression(), *digits)


def _two_folds(X, y):
    from sklearn.model_selection import StratifiedKFold

    return list(StratifiedKFold(2).split(X, y))


class TestRelations:
    def test_from_predictions(self, digits, net):
        X, y = digits
        K = lpntk_kernel(net, X, y)
        labels = np.arange(200) % 7
        display = RelationsDisplay.from_predictions(K, y, labels=labels)
        order = np.lexsort((labels, y))
        scale = np.sqrt(K.diagonal())
        expected = (K / np.outer(scale, scale))[np.ix_(order, order)]
        np.testing.assert_allclose(display.cosines, expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(display.y, y[order])
        for ax in display.axes_:
            assert_named(ax)
        drawn = sum(patch.get_height() for patch in display.axes_[1].patches)
        assert drawn == 200 * 199 / 2

    def test_from_estimator(self, digits, net):
        X, y = digits
        whole = RelationsDisplay.from_estimator(net, X, y)
        part = RelationsDisplay.from_estimator(net, X, y, max_samples=50, random_state=0)
        assert whole.cosines.shape == (200, 200)
        assert part.cosines.shape == (50, 50)
        left, right = plt.subplots(1, 2)[1]
        assert part.plot([left, right]).axes_.tolist() == [left, right]
        for ax in (plt.subplots()[1], plt.figure().add_axes((0.1, 0.2, 0.8, 0.7))):
            divided = part.plot(ax)
            assert len(divided.axes_) == 2
            divided.figure_.canvas.draw()

    def test_errors(self):
        with pytest.raises(ValueError, match="grid of 1 x 2 axes"):
            RelationsDisplay.from_predictions(np.eye(3), [0, 1, 1], ax=plt.subplots(3)[1])
        with pytest.raises(ValueError, match="K must be a square matrix"):
            RelationsDisplay.from_predictions(np.ones((2, 3)), [0, 1])


class TestPairs:
    def test_redundant(self, digits, net):
        X, y = digits
        pruner = RedundancyPruner(net=FrozenEstimator(net), strategy="redundant")
        pruner.fit_resample(X, y)
        display = SamplePairsDisplay.from_estimator(pruner, X, y, n_pairs=3)
        worst = np.argsort(-pruner.redundancy_)[:3]
        np.testing.assert_array_equal(display.images[:, 0], X[worst, 0])
        np.testing.assert_array_equal(display.images[:, 1], X[pruner.dominators_[worst], 0])
        assert f"ρ = {pruner.redundancy_[worst[0]]:.2f}" in display.captions[0][0]
        assert display.axes_.shape == (2, 3)
        assert display.axes_[0, 0].get_ylabel() == "redundant"
        display.figure_.canvas.draw()

    def test_contradictory(self, digits, net):
        X, y = digits
        display = SamplePairsDisplay.from_estimator(net, X, y, kind="contradictory", n_pairs=2)
        K = lpntk_kernel(net, X, y)
        cosines = K / np.sqrt(np.outer(K.diagonal(), K.diagonal()))
        i, j = np.unravel_index(cosines.argmin(), cosines.shape)
        shown = {tuple(image.ravel()) for image in display.images[0]}
        assert shown == {tuple(X[i].ravel()), tuple(X[j].ravel())}
        assert f"cos = {cosines.min():.2f}" in display.captions[0][0]

    def test_few_samples(self, digits, net):
        X, y = digits[0][:3], digits[1][:3]
        display = SamplePairsDisplay.from_estimator(net, X, y, kind="contradictory", n_pairs=9)
        assert len(display.images) == 1
        assert not np.array_equal(*display.images[0])
        with pytest.raises(ValueError, match="A pair needs two samples"):
            SamplePairsDisplay.from_estimator(net, X[:1], y[:1], kind="contradictory")

    def test_shapes_of_images(self, digits):
        X, y = digits
        pairs = [(0, 1), (2, 3)]
        rows = X.reshape(200, 64)
        colour = np.repeat(X, 3, axis=1)
        for images, options, shape in (
            (X, {}, (2, 2, 8, 8)),
            (X[:, 0], {}, (2, 2, 8, 8)),
            (rows, {"image_shape": (8, 8)}, (2, 2, 8, 8)),
            (colour, {}, (2, 2, 8, 8, 3)),
            (colour.transpose(0, 2, 3, 1), {}, (2, 2, 8, 8, 3)),
        ):
            display = SamplePairsDisplay.from_predictions(images, pairs, y=y, **options)
            assert display.images.shape == shape
        axes = plt.subplots(2, 2)[1]
        given = SamplePairsDisplay.from_predictions(X, pairs, ax=axes)
        assert given.axes_.tolist() == axes.tolist()
        divided = given.plot(plt.subplots()[1])
        assert divided.axes_.shape == (2, 2)
        divided.figure_.canvas.draw()
        two = SamplePairsDisplay.from_predictions(X[:9], pairs, X2=X[100:], y=y[:9], y2=y[100:])
        np.testing.assert_array_equal(two.images[:, 1], X[[101, 103], 0])
        assert two.captions[0] == (str(y[0]), str(y[101]))

    def test_errors(self, digits, net):
        X, y = digits
        with pytest.raises(ValueError, match="kind must be one of"):
            SamplePairsDisplay.from_estimator(net, X, y, kind="friends")
        with pytest.raises(ValueError, match="with dominators_"):
            SamplePairsDisplay.from_estimator(net, X, y)
        with pytest.raises(ValueError, match="Pass image_shape="):
            SamplePairsDisplay.from_predictions(X.reshape(200, 64), [(0, 1)])
        with pytest.raises(ValueError, match="int array of shape"):
            SamplePairsDisplay.from_predictions(X, [0, 1])


@pytest.fixture(scope="module")
def refurbisher(digits):
    X, y = digits
    noisy = np.where(np.arange(200) % 20 == 0, (y + 3) % 10, y)
    return LabelRefurbisher().fit(X, noisy)


class TestLabels:
    def test_flipped_images(self, refurbisher, digits):
        X, _ = digits
        display = FlippedLabelsDisplay.from_estimator(refurbisher, X, n_images=5, n_columns=3)
        assert display.axes_.shape == (2, 3)
        flip = refurbisher.flips_.iloc[refurbisher.flips_["margin"].argmax()]
        one = display.axes_[0, 0]
        assert one.get_title() == f"{flip['old']:.0f} → {flip['new']:.0f}\n{flip['margin']:.2f}"
        np.testing.assert_array_equal(one.images[0].get_array(), X[int(flip["row"]), 0])
        assert not display.axes_[1, 2].images
        assert display.figure_.get_suptitle() == "Repaired labels: old → new, and margin"
        rows = X.reshape(200, 64)
        divided = FlippedLabelsDisplay.from_estimator(
            refurbisher, rows, image_shape=(8, 8), ax=plt.figure().add_subplot()
        )
        np.testing.assert_array_equal(divided.images[:5], display.images)

    def test_of_a_meta_estimator(self, digits):
        X, y = digits
        noisy = np.where(np.arange(200) % 20 == 0, (y + 3) % 10, y)
        meta = RefurbishedClassifier(LogisticRegression()).fit(X.reshape(200, 64), noisy)
        display = FlippedLabelsDisplay.from_estimator(meta, X)
        assert len(display.images) == min(16, len(meta.refurbisher_.flips_))
        interaction = LabelInteractionDisplay.from_estimator(meta, X, y)
        assert interaction.cosines.shape == (10, 10)
        path = ErrorPathDisplay.from_estimator(meta).error_path
        np.testing.assert_array_equal(path, meta.refurbisher_.error_path_)

    def test_error_path(self, refurbisher):
        display = ErrorPathDisplay.from_estimator(refurbisher, color="k")
        line = display.ax_.lines[0]
        np.testing.assert_array_equal(line.get_ydata(), refurbisher.error_path_)
        assert ErrorPathDisplay.from_estimator(refurbisher, c="r").ax_.lines[0].get_color() == "r"
        assert display.ax_.get_xlabel() == "labels changed"
        assert "error" in display.ax_.get_ylabel()

    def test_interaction(self, refurbisher, digits):
        X, _ = digits
        display = LabelInteractionDisplay.from_estimator(refurbisher, X, refurbisher.labels_)
        Z, classes = label_interaction_matrix(InfiniteWidthNTK()(X), refurbisher.labels_)
        np.testing.assert_allclose(display.Z, Z)
        drawn = display.ax_.images[0].get_array()
        np.testing.assert_allclose(drawn[0, 1], Z[0, 1] / np.sqrt(Z[0, 0] * Z[1, 1]))
        assert [t.get_text() for t in display.ax_.get_xticklabels()] == [str(c) for c in classes]
        again = LabelInteractionDisplay.from_estimator(
            InfiniteWidthNTK(), X, refurbisher.labels_, ax=plt.subplots()[1]
        )
        np.testing.assert_allclose(again.Z, Z)
        norm = Normalize(-3, 3)
        scaled = LabelInteractionDisplay.from_predictions(Z, norm=norm)
        assert scaled.ax_.images[0].norm is norm

    def test_errors(self, refurbisher, digits):
        X, _ = digits
        with pytest.raises(NotFittedError):
            FlippedLabelsDisplay.from_estimator(LabelRefurbisher(), X)
        with pytest.raises(ValueError, match="No label was flipped"):
            FlippedLabelsDisplay.from_predictions(X, refurbisher.flips_[:0])
        with pytest.raises(ValueError, match="a frame with row, old"):
            FlippedLabelsDisplay.from_predictions(X, [(1, 2, 3)])
        with pytest.raises(ValueError, match="and X has 3; pass the X that the refurbisher"):
            FlippedLabelsDisplay.from_estimator(refurbisher, X[:3])
        for name in ("n_images", "n_columns"):
            with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1"):
                FlippedLabelsDisplay.from_estimator(refurbisher, X, **{name: 0})
        with pytest.raises(ValueError, match="error_path must have shape"):
            ErrorPathDisplay.from_predictions([[1.0]])
        with pytest.raises(ValueError, match="Z must be square"):
            LabelInteractionDisplay.from_predictions([[1.0, 2.0]])
        with pytest.raises(ValueError, match="finite and with a positive diagonal"):
            LabelInteractionDisplay.from_predictions([[1.0, np.nan], [np.nan, 1.0]])
        with pytest.raises(ValueError, match="classes must have shape"):
            LabelInteractionDisplay.from_predictions(np.eye(3), ["a"])


class TestTables:
    """Rows of tables are drawn as tables, and items of data sets as what they are."""

    @pytest.fixture
    def wine(self):
        from sklearn.datasets import load_wine

        X, y = load_wine(as_frame=True, return_X_y=True)
        X.index = [f"bottle {k}" for k in range(len(X))]
        return X, y

    def test_repaired_labels(self, wine):
        X, y = wine
        noisy = y.where(np.arange(len(y)) % 12 != 0, (y + 1) % 3)
        refurbisher = LabelRefurbisher().fit(X, noisy)
        display = FlippedLabelsDisplay.from_estimator(refurbisher, X, n_images=4)
        names, cells = display.table
        assert names == ["sample", *X.columns[:5], "…"]
        clearest = refurbisher.flips_.sort_values("margin", ascending=False).index[:4]
        assert [row[0] for row in cells] == list(clearest)
        assert display.images is None
        assert display.axes_[0, 0].tables

    @pytest.mark.parametrize("kind", ["redundant", "stand_in"])
    def test_pairs(self, wine, kind):
        X, y = wine
        pruner = RedundancyPruner(strategy="redundant", random_state=0, prune_fraction=0.5)
        pruner.fit(X, y)
        display = SamplePairsDisplay.from_estimator(pruner, X, y, kind=kind, n_pairs=3)
        samples = [row[0] for row in display.table[1]]
        frame, column = pruner.to_frame(), {"redundant": "dominator"}.get(kind, kind)
        for sample, partner in zip(samples[::2], samples[1::2], strict=True):
            assert frame.loc[sample, column] == partner

    def test_arrays_with_few_columns(self, wine):
        X, y = wine
        display = SamplePairsDisplay.from_predictions(X.to_numpy(), [(0, 1)], y=y)
        assert display.table[0][:2] == ["sample", "feature 0"]
        with pytest.raises(ValueError, match="or a frame to draw a table"):
            SamplePairsDisplay.from_predictions(np.zeros((3, 64)), [(0, 1)])

    def test_new_figures_have_a_title(self, digits):
        X, _ = digits
        display = SamplePairsDisplay.from_predictions(X[:, 0], [(0, 7)], title="Two digits")
        assert display.figure_.get_suptitle() == "Two digits"

    def test_a_data_set_of_images(self, digits):
        X, y = digits
        data = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(y))
        found = SamplePairsDisplay.from_predictions(data, [(0, 7)], y=y)
        np.testing.assert_array_equal(found.images[0, 1], X[7, 0])


class TestManyClassesAndStrategies:
    """One look for one meaning, and legends that cover no data."""

    @pytest.mark.parametrize("n_classes", [2, 10, 100])
    def test_classes_are_told_apart(self, n_classes):
        y = np.repeat(np.arange(n_classes), 3)
        x = np.random.default_rng(0).random(len(y))
        display = DifficultyDisplay.from_predictions(x, x, y=y)
        drawn = display.ax_.collections
        looks = {(tuple(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes()) for c in drawn}
        assert len(looks) == min(n_classes, 96)
        if n_classes <= 24:
            assert len(display.ax_.get_legend().texts) == n_classes
            assert covers_nothing(display.ax_)
        else:
            assert len(display.ax_.texts) == n_classes

    @pytest.mark.parametrize("n_classes", [2, 10, 100])
    def test_ticks_stand_in_the_middle_of_blocks(self, n_classes):
        y = np.repeat(np.arange(n_classes), 4)
        F = np.random.default_rng(0).normal(size=(len(y), 5))
        block = RelationsDisplay.from_predictions(F @ F.T, y).axes_[0]
        ticks = block.get_xticks()
        assert len(ticks) <= 25
        np.testing.assert_allclose(ticks[:2], [1.5, 1.5 + 4 * -(-n_classes // 25)])

    @pytest.mark.parametrize("n_strategies", [2, 12])
    def test_strategies_have_their_own_looks(self, n_strategies):
        from sklearn_lpntk.pruning._strategies import STRATEGIES

        names = ["random", *(s for s in STRATEGIES if s != "random")][:n_strategies]
        scores = {name: np.full((2, 1), 0.5 + k / 50) for k, name in enumerate(names)}
        ax = PruningCurveDisplay.from_predictions([0.5, 0.9], scores).ax_
        lines = {line.get_label(): line for line in ax.lines}
        drawn = [lines[name] for name in names]
        looks = {(d.get_color(), d.get_marker(), d.get_linestyle()) for d in drawn}
        assert len(looks) == n_strategies
        assert (lines["random"].get_color(), lines["random"].get_linestyle()) == ("#000000", "--")
        assert covers_nothing(ax)


def covers_nothing(ax):
    """Whether the legend is outside of the axes."""
    ax.figure.canvas.draw()
    legend, data = ax.get_legend().get_window_extent(), ax.get_window_extent()
    return not legend.overlaps(data)


@pytest.mark.filterwarnings("ignore:Choosing rows buys nothing")
def test_pruning_curves_of_functions_and_lists():
    X, y = load_iris(return_X_y=True)
    pruner = RedundancyPruner(LogisticRegression(max_iter=500), random_state=0)

    def by_row(samples):
        return np.arange(len(samples))

    display = PruningCurveDisplay.from_estimator(
        pruner, X, y, strategies=["random", by_row, ["random", by_row]], fractions=[0.5], cv=2
    )
    assert list(display.scores) == ["random", "by_row", "random or by_row"]
