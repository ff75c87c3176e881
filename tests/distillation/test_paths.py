"""Learning paths, against a training that is followed by hand."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from skorch.callbacks import Callback
from skorch.dataset import ValidSplit
from torch import nn
from torch.utils.data import RandomSampler

from sklearn_lpntk.distillation import LearningPaths
from sklearn_lpntk.dynamics import TrainingDynamics

N = 50


def data(n=N):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 4)).astype(np.float32), np.arange(n) % 3


def make_net(*callbacks, cls=NeuralNetClassifier, n_logits=3, **options):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, n_logits))
    options = {
        "max_epochs": 4, "batch_size": 8, "lr": 0.5, "iterator_train__shuffle": True,
        "train_split": None, "verbose": 0,
    } | options  # fmt: skip
    if cls is NeuralNetClassifier:
        options = {"criterion": nn.CrossEntropyLoss} | options
    return cls(module, callbacks=list(callbacks), **options)


def recorded(net):
    return dict(net.callbacks_)["LearningPaths"]


class Spy(LearningPaths):
    """Notes what every forward pass said, by the values of the samples themselves."""

    def on_batch_end(self, net, batch=None, training=None, *, y_pred=None, **kwargs):
        if training:
            self.visits_ = getattr(self, "visits_", [])
            proba = torch.softmax(y_pred.detach(), 1).numpy()
            self.visits_ += [
                (len(net.history) - 1, x.numpy().tobytes(), q) for x, q in zip(batch[0], proba)
            ]
        super().on_batch_end(net, batch=batch, training=training, y_pred=y_pred, **kwargs)


def by_hand(visits, X, n_epochs):
    """Mean probabilities over the visits of each epoch."""
    of_row = {x.tobytes(): i for i, x in enumerate(X)}
    found = [[[] for _ in X] for _ in range(n_epochs)]
    for epoch, x, q in visits:
        found[epoch][of_row[x]].append(q)
    return np.array([[np.mean(qs, 0) if qs else [np.nan] * 3 for qs in e] for e in found])


@pytest.fixture(scope="module")
def paths():
    X, y = data()
    return recorded(make_net(LearningPaths(), max_epochs=12).fit(X, y))


class TestRecording:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"train_split": ValidSplit(5)},
            {"iterator_train__sampler": "replacement", "iterator_train__shuffle": False},
        ],
        ids=["shuffled", "with a validation split", "drawn with replacement"],
    )
    def test_the_mean_of_each_epochs_visits(self, options):
        X, y = data()
        if options.get("iterator_train__sampler"):
            sampler = RandomSampler(range(N), replacement=True, num_samples=2 * N)
            options = options | {"iterator_train__sampler": sampler}
        net = make_net(("LearningPaths", Spy()), **options).fit(X, y)
        own = recorded(net)
        np.testing.assert_allclose(own.proba_, by_hand(own.visits_, X, 4), rtol=1e-5, atol=1e-6)
        assert own.proba_.dtype == np.float32
        assert own.epochs_.tolist() == [0, 1, 2, 3]
        visited = ~np.isnan(own.proba_[:, :, 0]).all(0)
        np.testing.assert_array_equal(own.labels_, np.where(visited, y, -1))

    def test_beside_other_curves_and_without(self):
        X, y = data()
        net = make_net(LearningPaths(), TrainingDynamics()).fit(X, y)
        losses = dict(net.callbacks_)["TrainingDynamics"].losses_
        own = recorded(net).proba_[:, np.arange(N), y]
        np.testing.assert_allclose(-np.log(own), losses, rtol=1e-4, atol=1e-5)
        plain = make_net().fit(X, y)
        for p, q in zip(net.module_.parameters(), plain.module_.parameters()):
            assert torch.equal(p, q)

    def test_some_epochs_of_some_samples(self, paths):
        X, y = data()
        few = LearningPaths(every=5, dtype="float16", sample_indices=[7, 3])
        own = recorded(make_net(few, max_epochs=12).fit(X, y))
        assert own.epochs_.tolist() == [0, 5, 10]
        assert own.proba_.dtype == np.float16
        np.testing.assert_allclose(own.proba_, paths.proba_[[0, 5, 10]][:, [7, 3]], atol=1e-3)

    def test_training_goes_on_and_begins_anew(self):
        X, y = data()
        net = make_net(LearningPaths(), max_epochs=2).fit(X, y)
        net.partial_fit(X, y, epochs=3)
        assert recorded(net).proba_.shape == (5, N, 3)
        begun = recorded(net).proba_.copy()
        net = pickle.loads(pickle.dumps(net)).partial_fit(X, y)
        assert recorded(net).proba_.shape == (7, N, 3)
        np.testing.assert_array_equal(recorded(net).proba_[:5], begun)
        assert recorded(net.fit(X, y)).proba_.shape == (2, N, 3)

    def test_an_interrupted_epoch_does_not_count(self):
        X, y = data()

        class Stop(Callback):
            def on_batch_begin(self, net, **kwargs):
                if len(net.history) == 3:
                    raise KeyboardInterrupt

        net = make_net(LearningPaths(), Stop()).fit(X, y)
        assert recorded(net).proba_.shape == (2, N, 3)

    def test_one_logit(self):
        X, y = data()
        net = make_net(LearningPaths(), cls=NeuralNetBinaryClassifier, n_logits=1)
        own = recorded(net.fit(X, (y > 0).astype(np.float32)))
        assert own.proba_.shape == (4, N, 2)
        np.testing.assert_allclose(own.proba_.sum(2), 1, rtol=1e-6)

    def test_in_a_file(self, tmp_path, paths):
        X, y = data()
        store = tmp_path / "paths.npy"
        net = make_net(LearningPaths(store=store), max_epochs=10).fit(X, y)
        net.partial_fit(X, y, epochs=2)
        assert isinstance(recorded(net).proba_, np.memmap)
        np.testing.assert_array_equal(np.load(store)[:10], paths.proba_[:10])
        assert recorded(net).zigzag().shape == (N,)
        with pytest.raises(FileExistsError, match="not overwritten: delete it"):
            net.fit(X, y)
        assert np.load(store).shape == (12, N, 3)

    def test_a_file_whose_last_row_was_cut_off(self, tmp_path, paths):
        """As by a kill: epochs that the header counts are whole."""
        X, y = data()
        store = tmp_path / "paths.npy"
        make_net(LearningPaths(store=store), max_epochs=3).fit(X, y)
        with store.open("ab") as file:
            file.write(b"half a row")
        np.testing.assert_array_equal(np.load(store, mmap_mode="r"), paths.proba_[:3])

    def test_a_folder_that_does_not_exist(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"make .*nowhere' first"):
            make_net(LearningPaths(store=tmp_path / "nowhere" / "paths.npy")).fit(*data())

    def test_a_file_that_a_copy_went_on_with(self, tmp_path):
        X, y = data()
        net = make_net(LearningPaths(store=tmp_path / "paths.npy")).fit(X, y)
        copied = pickle.loads(pickle.dumps(net))
        net.partial_fit(X, y)
        with pytest.raises(ValueError, match=r"holds 8 epochs, and this training has recorded 4"):
            copied.partial_fit(X, y)
        assert recorded(net).proba_.shape == (8, N, 3)


class TestWhatTheySay:
    def test_by_hand(self, paths):
        _, y = data()
        q = paths.proba_.astype(np.float64)
        steps = np.linalg.norm(np.diff(q, axis=0), axis=2).sum(0)
        np.testing.assert_allclose(
            paths.zigzag(), steps - np.linalg.norm(q[-1] - q[0], axis=1), atol=1e-6
        )
        own = q[:, np.arange(N), y]
        np.testing.assert_allclose(paths.integral_difficulty(), 1 - own.mean(0), rtol=1e-5)
        p = np.full((N, 3), [0.5, 0.3, 0.2])
        np.testing.assert_allclose(paths.distance(p), np.linalg.norm(q - p, axis=2), rtol=1e-5)
        np.testing.assert_allclose(
            paths.base_difficulty(p), np.linalg.norm(np.eye(3)[y] - p, axis=1), rtol=1e-12
        )

    def test_filtered(self, paths):
        q, a = paths.proba_.astype(np.float64), 0.3
        mean = np.zeros((N, 3))
        for row in q:
            mean = (1 - a) * mean + a * row
        plain = paths.filtered(a, bias_correction=False)
        np.testing.assert_allclose(plain, mean, rtol=1e-12)
        np.testing.assert_allclose(paths.filtered(a), mean / (1 - (1 - a) ** 12), rtol=1e-12)
        np.testing.assert_allclose(paths.filtered(1.0), q[-1], rtol=1e-12)
        np.testing.assert_array_equal(paths.filtered(), paths.filtered(4 / 12))
        np.testing.assert_allclose(paths.filtered().sum(1), 1, rtol=1e-6)

    def test_samples_that_are_seldom_visited(self):
        X, y = data()
        sampler = RandomSampler(range(N), replacement=True, num_samples=20)
        options = {"iterator_train__sampler": sampler, "iterator_train__shuffle": False}
        own = recorded(make_net(LearningPaths(), max_epochs=3, **options).fit(X, y))
        for i in range(N):
            q = own.proba_[:, i].astype(np.float64)
            q = q[~np.isnan(q[:, 0])]
            values = own.zigzag()[i], own.integral_difficulty()[i], own.filtered(0.5)[i]
            if not len(q):
                assert all(np.isnan(v).all() for v in values)
                assert own.labels_[i] == -1
                continue
            length = np.linalg.norm(np.diff(q, axis=0), axis=1).sum()
            np.testing.assert_allclose(values[0], length - np.linalg.norm(q[-1] - q[0]), atol=1e-12)
            np.testing.assert_allclose(values[1], 1 - q[:, y[i]].mean(), rtol=1e-6)
            weights = 0.5 ** np.arange(len(q))[::-1]
            np.testing.assert_allclose(values[2], weights @ q / weights.sum(), rtol=1e-12)


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"every": 0}, "every must be 'epoch' or a number of epochs"),
            ({"every": "visit"}, "every must be 'epoch'"),
            ({"every": True}, "every must be 'epoch'"),
            ({"dtype": "int8"}, r"dtype must be one of \['float16', 'float32'\]"),
            ({"sample_indices": [N]}, "sample_indices must be unique rows"),
        ],
    )
    def test_parameters(self, options, message):
        with pytest.raises(ValueError, match=message):
            make_net(LearningPaths(**options)).fit(*data())

    @pytest.mark.parametrize("smoothing", [0, 1.5, "much", np.nan])
    def test_smoothing(self, paths, smoothing):
        with pytest.raises(ValueError, match="smoothing must be 'auto', or above 0"):
            paths.filtered(smoothing)

    @pytest.mark.parametrize(
        "p", [np.ones((N, 3)), np.full((N, 2), 0.5), np.full((N, 3), np.nan), [[2, -1, 0]] * N]
    )
    def test_distributions(self, paths, p):
        with pytest.raises(ValueError, match=r"must have shape \(50, 3\)"):
            paths.distance(p)

    def test_before_training(self):
        with pytest.raises(NotFittedError, match="has recorded no epoch yet"):
            LearningPaths().proba_  # noqa: B018

    def test_samples_that_are_not_trained_on(self):
        X, y = data()
        held = ValidSplit(5)
        net = make_net(LearningPaths(), train_split=held).fit(X, y)
        outside = np.flatnonzero(recorded(net).labels_ < 0)
        with pytest.raises(ValueError, match="None of the tracked samples was visited"):
            make_net(LearningPaths(sample_indices=outside), train_split=held).fit(X, y)
