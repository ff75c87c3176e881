"""The curves that the callbacks record, against a training loop that is followed by hand."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, Checkpoint, EarlyStopping
from skorch.dataset import Dataset, ValidSplit
from skorch.helper import predefined_split
from torch import nn
from torch.nn import functional as F
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    Subset,
    TensorDataset,
    default_collate,
)

from sklearn_lpntk.dynamics import (
    EL2N,
    AreaUnderMargin,
    ForgettingEvents,
    LearningDifficulty,
    TrainingDynamics,
    _curves,
)

N = 50


def data(n=N, n_classes=3):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 4)).astype(np.float32), np.arange(n) % n_classes


def make_net(*callbacks, cls=NeuralNetClassifier, **options):
    torch.manual_seed(0)
    options = {
        "criterion": nn.CrossEntropyLoss,
        "max_epochs": 4,
        "batch_size": 8,
        "lr": 0.5,
        "iterator_train__shuffle": True,
        "train_split": None,
        "verbose": 0,
    } | options
    options.setdefault(
        "module", nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
    )
    return cls(options.pop("module"), callbacks=list(callbacks), **options)


def recorded(net, name="TrainingDynamics"):
    return dict(net.callbacks_)[name]


class Spy(TrainingDynamics):
    """Notes what every forward pass said, by the values of the samples themselves."""

    def on_batch_end(self, net, batch=None, training=None, *, y_pred=None, **kwargs):
        if training:
            if not hasattr(self, "visits_"):
                self.visits_ = []
            X, y = batch
            self.visits_ += [
                (len(net.history), tuple(x.tolist()), int(label), z.detach().clone())
                for x, label, z in zip(X, y, y_pred, strict=True)
            ]
        super().on_batch_end(net, batch=batch, training=training, y_pred=y_pred, **kwargs)


def by_hand(visits, X, n_epochs):
    """losses, error norms, margins, last correctness and event counts, a visit at a time."""
    row_of = {tuple(x.tolist()): i for i, x in enumerate(X)}
    losses, norms, margins = [[[[] for _ in X] for _ in range(n_epochs)] for _ in range(3)]
    correct = np.full((n_epochs, len(X)), -1)
    last, counts = [None] * len(X), np.zeros(len(X), dtype=int)
    for epoch, x, label, z in visits:
        i, e = row_of[x], epoch - 1
        losses[e][i].append(-F.log_softmax(z, 0)[label].item())
        error = torch.softmax(z, 0)
        error[label] -= 1
        norms[e][i].append(error.norm().item())
        margins[e][i].append((z[label] - max(z[:label].tolist() + z[label + 1 :].tolist())).item())
        right = bool(z.argmax() == label)
        counts[i] += last[i] is True and not right
        last[i] = right
        correct[e, i] = right
    curves = losses, norms, margins
    mean = [[[np.mean(v) if v else np.nan for v in row] for row in curve] for curve in curves]
    return *map(np.array, mean), correct, counts


def assert_as_by_hand(spy, X, n_epochs):
    losses, norms, margins, correct, counts = by_hand(spy.visits_, X, n_epochs)
    np.testing.assert_allclose(spy.losses_, losses, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(spy.margins_, margins, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(spy.error_norms_, norms, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(spy.correct_, correct)
    np.testing.assert_array_equal(spy.forgetting_counts_, counts)
    return counts


LOADERS = {
    "shuffled": {},
    "in order": {"iterator_train__shuffle": False},
    "the rest dropped": {"iterator_train__drop_last": True},
    "two workers": {"iterator_train__num_workers": 2},
    "workers that persist": {
        "iterator_train__num_workers": 1,
        "iterator_train__persistent_workers": True,
    },
    "split off": {"train_split": ValidSplit(5, stratified=True)},
    "validation elsewhere": {"train_split": predefined_split(Dataset(*data(9)))},
}


@pytest.mark.filterwarnings("ignore:.*os.fork:DeprecationWarning")
@pytest.mark.parametrize("piece", [1, 60, 2**20])
@pytest.mark.parametrize("case", LOADERS)
def test_every_visit_is_recorded_where_it_belongs(case, piece, monkeypatch):
    monkeypatch.setattr(_curves.Curves, "PIECE", piece)
    X, y = data()
    net = make_net(Spy(), **LOADERS[case], max_epochs=6).fit(X, y)
    spy = recorded(net, "Spy")
    assert spy.losses_.shape == (6, N)
    counts = assert_as_by_hand(spy, X, 6)
    assert counts.sum() > 0
    if case == "split off":
        never = np.isnan(spy.losses_).all(axis=0)
        assert never.sum() == 10
        assert np.isnan(spy.difficulty_[never]).all()
        assert not spy.never_learned_[never].any()


def with_replacement(dataset, **kwargs):
    """Some samples come several times in an epoch, also in one batch, and some never."""
    kwargs.pop("shuffle", None)
    return DataLoader(dataset, sampler=RandomSampler(dataset, replacement=True), **kwargs)


@pytest.mark.parametrize("piece", [1, 60, 2**20])
def test_samples_drawn_with_replacement(piece, monkeypatch):
    monkeypatch.setattr(_curves.Curves, "PIECE", piece)
    X, y = data()
    net = make_net(Spy(), iterator_train=with_replacement, max_epochs=8).fit(X, y)
    spy = recorded(net, "Spy")
    losses, norms, _, correct, _ = by_hand(spy.visits_, X, 8)
    np.testing.assert_allclose(spy.losses_, losses, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(spy.error_norms_, norms, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(spy.correct_ < 0, correct < 0)
    assert np.isnan(spy.losses_).any()
    # an epoch without a visit counts as the mean of the others
    np.testing.assert_allclose(spy.difficulty_, 8 * np.nanmean(losses, axis=0), rtol=1e-4)


def test_what_is_derived_from_the_curves():
    X, y = data()
    net = make_net(TrainingDynamics(), max_epochs=8).fit(X, y)
    found = recorded(net)
    np.testing.assert_allclose(found.difficulty_, found.losses_.sum(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.el2n_, found.error_norms_.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.aum_, found.margins_.mean(axis=0), rtol=1e-5)
    for i in range(N):
        right = np.flatnonzero(found.correct_[:, i] == 1)
        assert found.first_learned_[i] == (right[0] if len(right) else -1)
        assert found.never_learned_[i] == (len(right) == 0)
    # every sample is visited once an epoch, so events are falls from epoch to epoch
    falls = (np.diff(found.correct_, axis=0) == -1).sum(axis=0)
    np.testing.assert_array_equal(found.forgetting_counts_, falls)
    assert found.never_learned_.any()


def test_the_parts_record_what_the_whole_does():
    X, y = data()
    parts = LearningDifficulty(), ForgettingEvents(), EL2N(), AreaUnderMargin()
    net = make_net(TrainingDynamics(), *parts).fit(X, y)
    whole = recorded(net)
    for part, names in zip(
        parts,
        (
            ("losses_", "difficulty_"),
            ("correct_", "forgetting_counts_", "first_learned_", "never_learned_"),
            ("error_norms_", "el2n_"),
            ("margins_", "aum_"),
        ),
        strict=True,
    ):
        for name in names:
            found = getattr(recorded(net, type(part).__name__), name)
            np.testing.assert_array_equal(found, getattr(whole, name))
    assert net.iterator_train is DataLoader


@pytest.mark.parametrize("evaluation_pass", [False, True])
def test_training_is_the_same_with_and_without(evaluation_pass):
    X, y = data()
    plain, watched = (
        make_net(*callbacks, train_split=ValidSplit(5)).fit(X, y)
        for callbacks in ((), (TrainingDynamics(evaluation_pass=evaluation_pass),))
    )
    for p, q in zip(plain.module_.parameters(), watched.module_.parameters(), strict=True):
        assert torch.equal(p, q)
    assert torch.equal(torch.rand(3), torch.rand(3)) is False  # the generator goes on
    assert plain.history[:, "train_loss"] == watched.history[:, "train_loss"]


@pytest.mark.parametrize("evaluation_pass", [False, True])
def test_a_subset_of_the_samples(evaluation_pass):
    X, y = data()
    rows = np.array([7, 3, 41])
    mask = np.zeros(N, dtype=bool)
    mask[rows] = True
    runs = {}
    for name, indices in (("all", None), ("rows", rows), ("mask", mask)):
        callback = TrainingDynamics(sample_indices=indices, evaluation_pass=evaluation_pass)
        runs[name] = recorded(make_net(callback).fit(X, y))
    for name in ("losses_", "difficulty_", "forgetting_counts_", "correct_", "el2n_"):
        whole = getattr(runs["all"], name)
        np.testing.assert_allclose(getattr(runs["rows"], name), whole[..., rows], rtol=1e-6)
        np.testing.assert_allclose(
            getattr(runs["mask"], name), whole[..., np.sort(rows)], rtol=1e-6
        )


def test_the_evaluation_pass_is_in_evaluation_mode_after_the_epoch():
    X, y = data()
    net = make_net(TrainingDynamics(evaluation_pass=True), train_split=ValidSplit(5)).fit(X, y)
    with torch.no_grad():
        z = net.module_.eval()(torch.from_numpy(X))
    expected = F.cross_entropy(z, torch.from_numpy(y), reduction="none").numpy()
    np.testing.assert_allclose(recorded(net).losses_[-1], expected, rtol=1e-4, atol=1e-6)
    assert not np.isnan(recorded(net).losses_).any()  # validation rows, too


def test_warm_restarts_go_on_and_fit_begins_anew():
    X, y = data()
    net = make_net(Spy(), max_epochs=3).fit(X, y)
    net.partial_fit(X, y)
    spy = recorded(net, "Spy")
    assert spy.losses_.shape == (6, N)
    assert_as_by_hand(spy, X, 6)
    net.set_params(warm_start=True)
    net.fit(X, y)
    assert recorded(net, "Spy").losses_.shape == (9, N)
    net.set_params(warm_start=False)
    net.fit(X, y)
    assert recorded(net, "Spy").losses_.shape == (3, N)


def test_one_logit():
    X, y = data(n_classes=2)
    net = make_net(
        TrainingDynamics(evaluation_pass=True),
        cls=NeuralNetBinaryClassifier,
        module=nn.Linear(4, 1),
        criterion=nn.BCEWithLogitsLoss,
    ).fit(X, y.astype(np.float32))
    found = recorded(net)
    with torch.no_grad():
        z = net.module_(torch.from_numpy(X))[:, 0]
    expected = F.binary_cross_entropy_with_logits(z, torch.from_numpy(y).float(), reduction="none")
    np.testing.assert_allclose(found.losses_[-1], expected.numpy(), rtol=1e-4)
    np.testing.assert_array_equal(found.correct_[-1], (z > 0).numpy() == y)


def test_copies_of_the_net():
    X, y = data()
    net = make_net(TrainingDynamics(sample_indices=[1, 2])).fit(X, y)
    for copied in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        np.testing.assert_array_equal(recorded(copied).losses_, recorded(net).losses_)
        copied.partial_fit(X, y)
        assert recorded(copied).losses_.shape == (8, 2)
    anew = clone(net)
    assert anew.callbacks[0].sample_indices == [1, 2]
    assert not hasattr(anew.callbacks[0], "curves_")
    # a pickle holds no data
    big = np.zeros((N, 4, 5000), dtype=np.float32)
    net = make_net(TrainingDynamics(), module=nn.Sequential(nn.Flatten(), nn.Linear(20_000, 3)))
    net.set_params(max_epochs=1).fit(big, y)
    assert len(pickle.dumps(recorded(net))) < 20_000


def test_an_interrupted_epoch_is_not_counted():
    X, y = data()

    class Interrupts(ForgettingEvents):
        def on_batch_end(self, net, training=None, **kwargs):
            super().on_batch_end(net, training=training, **kwargs)
            if len(net.history) == 3 and len(net.history[-1, "batches"]) == 2:
                raise KeyboardInterrupt

    net = make_net(Interrupts()).fit(X, y)
    assert recorded(net, "Interrupts").correct_.shape == (2, N)
    net.partial_fit(X, y)
    assert recorded(net, "Interrupts").correct_.shape[0] > 2


class TestHostile:
    """What once went wrong."""

    def test_a_fit_that_fails_before_the_first_batch_leaves_no_trace(self):
        X, y = data()
        net = make_net(TrainingDynamics())
        with pytest.raises(ValueError, match="length"):
            net.fit(X[:40], y)
        anew = clone(net).set_params(batch_size=25).fit(X, y)
        assert anew.history[-1, "batches", :, "train_batch_size"] == [25, 25]
        net.fit(X, y)
        assert net.iterator_train is DataLoader
        assert recorded(net).losses_.shape == (4, N)

    def test_batches_out_of_order_are_refused(self):
        net = make_net(
            TrainingDynamics(), iterator_train__in_order=False, iterator_train__num_workers=1
        )
        with pytest.raises(ValueError, match="in_order"):
            net.fit(*data())

    def test_random_numbers_of_the_data_set_are_left_alone(self):
        class Noisy(torch.utils.data.Dataset):
            def __len__(self):
                return N

            def __getitem__(self, i):
                X, y = data()
                return X[i] + np.float32(np.random.normal()), y[i]

        losses = []
        for callbacks in ((), (TrainingDynamics(evaluation_pass=True),)):
            np.random.seed(0)
            net = make_net(*callbacks).fit(Noisy(), None)
            losses.append(net.history[:, "train_loss"])
            assert net.module_.training
        assert losses[0] == losses[1]

    @pytest.mark.parametrize("evaluation_pass", [False, True])
    def test_another_callback_may_stop_the_training_first(self, evaluation_pass):
        stop = EarlyStopping(monitor="train_loss", patience=1, threshold=10.0)
        net = make_net(stop, TrainingDynamics(evaluation_pass=evaluation_pass)).fit(*data())
        assert recorded(net).losses_.shape == (len(net.history), N)
        assert len(net.history) < 4

    @pytest.mark.filterwarnings("ignore:You set iterator_valid__shuffle:UserWarning")
    @pytest.mark.parametrize("option", ["shuffle", "drop_last"])
    def test_the_evaluation_pass_knows_its_rows(self, option):
        runs = [
            recorded(make_net(TrainingDynamics(evaluation_pass=True), **options).fit(*data()))
            for options in ({}, {f"iterator_valid__{option}": True})
        ]
        there = ~np.isnan(runs[1].losses_)
        assert there.all() == (option == "shuffle")
        np.testing.assert_allclose(runs[1].losses_[there], runs[0].losses_[there], rtol=1e-5)

    @pytest.mark.parametrize("evaluation_pass", [False, True])
    def test_rows_are_those_of_the_subset_that_was_given(self, evaluation_pass):
        X, y = data()
        whole = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
        whole = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
        subset = Subset(Subset(whole, range(10, 50)), range(5, 25))
        found, expected = (
            recorded(make_net(TrainingDynamics(evaluation_pass=evaluation_pass)).fit(*given))
            for given in ((subset, y[15:35]), (X[15:35], y[15:35]))
        )
        np.testing.assert_allclose(found.losses_, expected.losses_, rtol=1e-5)

    def test_a_later_callback_may_write_into_the_logits(self):
        class Vandal(Callback):
            def on_batch_end(self, net, y_pred=None, **kwargs):
                y_pred.data.zero_()

        runs = [make_net(TrainingDynamics(), *more).fit(*data()) for more in ((), (Vandal(),))]
        np.testing.assert_array_equal(recorded(runs[0]).losses_, recorded(runs[1]).losses_)

    @pytest.mark.filterwarnings("ignore:.*os.fork:DeprecationWarning")
    @pytest.mark.parametrize("persistent", [False, True])
    def test_a_loader_that_is_kept_between_fits(self, persistent):
        X, y = data()
        workers = {"num_workers": 1, "persistent_workers": True} if persistent else {}
        loader = DataLoader(Dataset(X, y), batch_size=8, shuffle=True, **workers)
        before = loader.batch_sampler
        net = make_net(Spy(), iterator_train=lambda dataset, **kwargs: loader)
        net.fit(X, y)
        net.partial_fit(X, y)
        assert_as_by_hand(recorded(net, "Spy"), X, 8)
        assert persistent or loader.batch_sampler is before

    def test_loaders_that_are_made_and_not_trained_on(self):
        class Counts(Callback):
            def on_train_begin(self, net, X=None, y=None, **kwargs):
                self.n_ = len(net.get_iterator(net.get_dataset(X, y), training=True))

        X, y = data()
        net = make_net(Spy(), Counts()).fit(X, y)
        assert_as_by_hand(recorded(net, "Spy"), X, 4)

    def test_another_callback_that_fails_at_the_beginning(self):
        class Fails(Callback):
            def on_train_begin(self, net, **kwargs):
                raise RuntimeError("on purpose")

        X, y = data()
        net = make_net(TrainingDynamics(), Fails())
        with pytest.raises(RuntimeError, match="on purpose"):
            net.fit(X, y)
        assert clone(net).iterator_train is DataLoader
        assert copy.deepcopy(net).iterator_train is DataLoader
        assert pickle.loads(pickle.dumps(net.iterator_train)) is DataLoader
        net.set_params(callbacks=None).fit(X, y)
        assert net.iterator_train is DataLoader

    def test_a_clone_that_is_fitted_meanwhile(self):
        class FitsAClone(Callback):
            def on_train_begin(self, net, X=None, y=None, **kwargs):
                self.clone_ = clone(net).set_params(callbacks=None).fit(X, y)

        X, y = data()
        net = make_net(Spy(), FitsAClone()).fit(X, y)
        assert_as_by_hand(recorded(net, "Spy"), X, 4)
        assert recorded(net, "FitsAClone").clone_.iterator_train is DataLoader

    def test_another_loader_that_is_looked_into_during_an_epoch(self):
        class Looks(Callback):
            def on_train_begin(self, net, X=None, y=None, **kwargs):
                self.loader_ = net.get_iterator(net.get_dataset(X, y), training=True)

            def on_batch_end(self, net, **kwargs):
                next(iter(self.loader_))

        X, y = data()
        net = make_net(Spy(), Looks()).fit(X, y)
        assert_as_by_hand(recorded(net, "Spy"), X, 4)

    def test_a_split_that_makes_data_of_its_own_is_refused(self):
        def split(dataset, y=None, **kwargs):
            X, y = data()
            return Dataset(X[1::2], y[1::2]), Dataset(X[::2], y[::2])

        with pytest.raises(ValueError, match="no subset of the 50 of X"):
            make_net(TrainingDynamics(), train_split=split).fit(*data())

    def test_batch_samplers_keep_their_types_and_attributes(self):
        class Seeded:
            epoch = 0

            def __iter__(self):
                order = np.random.default_rng(self.epoch).permutation(N)
                yield from (torch.from_numpy(rows) for rows in order.reshape(5, 10))

            def __len__(self):
                return 5

        class Tensors(torch.utils.data.Dataset):
            def __len__(self):
                return N

            def __getitem__(self, i):
                raise AssertionError

            def __getitems__(self, rows):
                assert isinstance(rows, torch.Tensor)
                X, y = data()
                return [(X[i], y[i]) for i in rows]

        class NextEpoch(Callback):
            def on_epoch_begin(self, net, **kwargs):
                loader.batch_sampler.epoch = len(net.history)

        losses = []
        for callbacks in ((), (Spy(),)):
            loader = DataLoader(Tensors(), batch_sampler=Seeded())
            options = {"iterator_train": lambda dataset, kept=loader, **kwargs: kept}
            net = make_net(NextEpoch(), *callbacks, **options).fit(Tensors(), data()[1])
            losses.append(net.history[:, "train_loss"])
        assert losses[0] == losses[1]
        assert_as_by_hand(recorded(net, "Spy"), data()[0], 4)


class Augmented(torch.utils.data.Dataset):
    """What augments images is a data set around a subset, no subset."""

    def __init__(self, subset):
        self.subset = subset

    def __len__(self):
        return len(self.subset)

    def __getitem__(self, i):
        return self.subset[i]


class Strings(torch.utils.data.Dataset):
    def __init__(self, X, y=None):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return torch.tensor([float(len(self.X[i])), 1, 2, 3]), self.y[i]


class TestOrders:
    """What stands between the batch sampler and the batch, or before the end of an epoch."""

    @pytest.mark.parametrize("last", [EarlyStopping, Checkpoint])
    def test_the_best_weights_loaded_before_the_last_evaluation(self, last, tmp_path):
        stop = EarlyStopping(monitor="train_loss", patience=2, load_best=last is EarlyStopping)
        first = [stop]
        if last is Checkpoint:
            first.append(Checkpoint(monitor="train_loss_best", load_best=True, dirname=tmp_path))
        options = {"max_epochs": 60, "lr": 3.0}
        net = make_net(*first, TrainingDynamics(evaluation_pass=True), **options)
        with pytest.warns(UserWarning, match="weights were changed after the last epoch"):
            net.fit(*data())
        losses = recorded(net).losses_
        assert 3 < len(losses) < 60
        assert np.isnan(losses[-1]).all()
        assert not np.isnan(losses[:-1]).any()
        assert (recorded(net).correct_[-1] == -1).all()

    def test_a_split_that_wraps_its_subsets(self):
        whole = TensorDataset(*map(torch.from_numpy, data()))

        def split(dataset, y=None, **kwargs):
            return Augmented(Subset(dataset, range(40))), None

        net = make_net(TrainingDynamics(), train_split=split)
        with pytest.raises(ValueError, match="Augmented of 40 samples that is no subset of the 50"):
            net.fit(whole, None)

    def test_an_iterator_for_validation_with_data_of_its_own(self):
        kept = DataLoader(Dataset(*data(N)), batch_size=8)
        net = make_net(TrainingDynamics(evaluation_pass=True), iterator_valid=lambda d, **k: kept)
        with pytest.raises(ValueError, match="over a Dataset of its own"):
            net.fit(*data())

    def test_an_iterator_for_validation_that_is_no_loader(self):
        net = make_net(TrainingDynamics(evaluation_pass=True), iterator_valid=lambda d, **k: [d])
        with pytest.raises(ValueError, match="here it is a list"):
            net.fit(*data())

    def test_a_collate_fn_that_sorts_is_refused(self):
        def longest_first(samples):
            return default_collate(sorted(samples, key=lambda sample: sample[0][0]))

        net = make_net(TrainingDynamics(), iterator_train__collate_fn=longest_first)
        with pytest.raises(ValueError, match="collate_fn must keep the order"):
            net.fit(*data())

    def test_a_collate_fn_that_renames_labels(self):
        def renamed(samples):
            X, y = default_collate(samples)
            return X, 2 - y

        X, y = data()
        net = make_net(Spy(), iterator_train__collate_fn=renamed).fit(X, y)
        assert_as_by_hand(recorded(net, "Spy"), X, 4)

    def test_a_loader_that_skips_batches_is_refused(self):
        class Skipping(DataLoader):
            def __iter__(self):
                batches = super().__iter__()
                next(batches)
                yield from batches

        net = make_net(TrainingDynamics(), iterator_train=Skipping)
        with pytest.raises(ValueError, match="a loader may not skip batches"):
            net.fit(*data())

    @pytest.mark.filterwarnings("ignore:.*os.fork:DeprecationWarning")
    @pytest.mark.parametrize("num_workers", [0, 1])
    def test_the_training_loader_looked_into_during_an_epoch(self, num_workers):
        class Probe(Callback):
            def on_batch_end(self, net, training=None, **kwargs):
                if training:
                    next(iter(kept))

            def on_epoch_end(self, net, **kwargs):
                list(kept)

        X, y = data(48)
        kept = DataLoader(Dataset(X, y), 8, shuffle=True, num_workers=num_workers)
        net = make_net(Spy(), Probe(), iterator_train=lambda d, **k: kept).fit(X, y)
        assert_as_by_hand(recorded(net, "Spy"), X, 4)

    def test_a_loader_made_for_another_purpose(self):
        class Initialise(Callback):
            def on_train_begin(self, net, X=None, y=None, **kwargs):
                next(iter(net.get_iterator(net.get_dataset(X[:16], y[:16]), training=True)))

        X, y = data()
        net = make_net(Spy(), Initialise()).fit(X, y)
        assert_as_by_hand(recorded(net, "Spy"), X, 4)

    def test_data_sets_of_strings(self):
        _, y = data()
        strings = ["a" * (i % 7 + 1) for i in range(N)]
        for X in (strings, ["abcdef"] * N):
            net = make_net(TrainingDynamics(), dataset=Strings).fit(X, y)
            assert recorded(net).losses_.shape == (4, N)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.int8, np.uint64])
    def test_indices_of_any_integer_type(self, dtype):
        rows = np.arange(10, 40, dtype=dtype)

        def split(dataset, y=None, **kwargs):
            return Subset(dataset, rows), None

        def sampled(dataset, shuffle, **kwargs):
            return DataLoader(dataset, sampler=rows[:20] - rows[0], **kwargs)

        X, y = data()
        options = {"train_split": split, "iterator_train": sampled}
        net = make_net(TrainingDynamics(sample_indices=rows[:25]), **options).fit(X, y)
        assert recorded(net).tracked_.dtype == np.int64
        np.testing.assert_array_equal(np.isnan(recorded(net).losses_[0]), np.arange(25) >= 20)

    def test_samplers_that_hand_out_more_than_rows(self):
        class Pairs(torch.utils.data.Dataset):
            def __init__(self, X, y):
                self.X, self.y = X, y

            def __len__(self):
                return len(self.X)

            def __getitem__(self, pair):
                return self.X[pair[0]], self.y[pair[0]]

        def iterator(dataset, batch_size, **kwargs):
            return DataLoader(dataset, batch_size, sampler=[(i, 7) for i in range(N)])

        net = make_net(TrainingDynamics(), dataset=Pairs, iterator_train=iterator)
        with pytest.raises(ValueError, match="must hand out lists of rows"):
            net.fit(*data())

    def test_nothing_is_left_on_a_net_without_epochs(self):
        net = make_net(TrainingDynamics(), max_epochs=0).fit(*data())
        assert net.iterator_train is DataLoader

    def test_an_interrupted_evaluation_is_not_begun_again(self):
        class Interrupted(NeuralNetClassifier):
            n_steps = 0

            def evaluation_step(self, *args, **kwargs):
                self.n_steps += 1
                if self.n_steps == 10:  # in the second pass over seven batches
                    raise KeyboardInterrupt
                return super().evaluation_step(*args, **kwargs)

        net = make_net(TrainingDynamics(evaluation_pass=True), cls=Interrupted).fit(*data())
        assert net.n_steps == 10
        assert net.module_.training
        assert len(recorded(net).losses_) == 1

    def test_close_logits_are_told_apart(self):
        module = nn.Linear(4, 3)
        with torch.no_grad():
            module.weight.mul_(1e-8)
            module.bias.zero_()
        X, y = data()
        net = make_net(TrainingDynamics(evaluation_pass=True), module=module, lr=0.0, max_epochs=1)
        net.fit(X, y)
        right = net.forward(X).argmax(1).numpy() == y
        np.testing.assert_array_equal(recorded(net).correct_[0], right)


class Endless(IterableDataset):
    def __iter__(self):
        X, y = data()
        return iter(zip(X, y, strict=True))

    def __len__(self):
        return N


class TestErrors:
    def test_nothing_recorded(self):
        for callback, name in (
            (TrainingDynamics(), "losses_"),
            (LearningDifficulty(), "difficulty_"),
            (ForgettingEvents(), "forgetting_counts_"),
            (EL2N(), "el2n_"),
            (AreaUnderMargin(), "aum_"),
        ):
            with pytest.raises(
                NotFittedError, match=f"This {type(callback).__name__} has recorded"
            ):
                getattr(callback, name)

    @pytest.mark.parametrize("rows", [[0, N], [-1], [1, 1], [], [0.5], [True] * 3, [[1]], "all"])
    def test_rows_that_the_data_does_not_have(self, rows):
        net = make_net(TrainingDynamics(sample_indices=rows))
        with pytest.raises(
            ValueError, match=f"unique rows of the training data, from 0 to {N - 1}"
        ):
            net.fit(*data())

    def test_other_data_after_a_warm_restart(self):
        net = make_net(TrainingDynamics()).fit(*data())
        with pytest.raises(ValueError, match=f"tracks {N} samples, and training goes on with 20"):
            net.partial_fit(*data(20))
        net.partial_fit(*data())  # and nothing is broken
        assert recorded(net).losses_.shape == (8, N)

    def test_probabilities(self):
        net = make_net(TrainingDynamics(), criterion=nn.NLLLoss)
        with pytest.raises(ValueError, match=r"set criterion=torch\.nn\.CrossEntropyLoss"):
            net.fit(*data())

    def test_a_data_set_without_indices(self):
        net = make_net(TrainingDynamics(), iterator_train__shuffle=False)
        with pytest.raises(ValueError, match=r"batch sampler of a DataLoader.*Endless"):
            net.fit(Endless(), None)

    def test_an_iterator_that_is_no_loader(self):
        def batches(dataset, **kwargs):
            return [dataset[:8]]

        net = make_net(TrainingDynamics(), iterator_train=batches)
        with pytest.raises(ValueError, match="here it is a list"):
            net.fit(*data())

    def test_targets_that_are_no_classes(self):
        X, _ = data()
        net = make_net(TrainingDynamics())
        with pytest.raises(ValueError, match="need one class label each"):
            net.fit(X, np.full((N, 3), 1 / 3, dtype=np.float32))

    def test_tokens(self):
        net = make_net(TrainingDynamics(), module=nn.Unflatten(1, (2, 2)))
        with pytest.raises((ValueError, RuntimeError)):
            net.fit(*data())

    def test_regression(self):
        X, _ = data()
        net = NeuralNetRegressor(nn.Linear(4, 1), callbacks=[TrainingDynamics()], verbose=0)
        with pytest.raises(TypeError, match="must be a skorch classifier"):
            net.fit(X, X[:, :1])

    def test_smoothed_targets(self):
        X, y = data(n_classes=2)
        net = make_net(
            TrainingDynamics(),
            cls=NeuralNetBinaryClassifier,
            module=nn.Linear(4, 1),
            criterion=nn.BCEWithLogitsLoss,
        )
        with pytest.raises(ValueError, match=r"y holds fractions, as 0\.[19]"):
            net.fit(X, (0.1 + 0.8 * y).astype(np.float32))

    def test_outputs_that_are_no_logits(self):
        class Named(nn.Linear):
            def forward(self, X):
                return {"logits": super().forward(X)}

        class Net(NeuralNetClassifier):
            def get_loss(self, y_pred, y_true, *args, **kwargs):
                return F.cross_entropy(y_pred["logits"], y_true)

        with pytest.raises(ValueError, match="returned a dict of shape"):
            make_net(TrainingDynamics(), cls=Net, module=Named(4, 3)).fit(*data())
