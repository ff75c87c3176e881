"""Ranking training sequences: against gradients, against steps, and on a mixture."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklearn_lpntk.language import DPO, LanguageSelector
from sklearn_lpntk.language._selection import STRATEGIES

from .models import (
    VOCABULARY,
    Recurrent,
    gpt2,
    jacobian,
    make,
    make_batch,
    sums,
    token_log_proba,
)

TRAIN, VALIDATION = make_batch(9, 8, "left"), make_batch(4, 7, "right", seed=1)


def mean_gradients(model, batch):
    counts = (batch["labels"] != -100).sum(1, keepdim=True)
    return -jacobian(sums(token_log_proba(model, batch), batch), model) / counts


def expected_scores(model, train=TRAIN, validation=VALIDATION):
    theirs = -jacobian(token_log_proba(model, validation).mean()[None], model)[0]
    return (mean_gradients(model, train) @ theirs).numpy(), float(theirs.norm())


def fitted(model, *batches, **options):
    return LanguageSelector(model, random_state=0, **options).fit(*batches or (TRAIN, VALIDATION))


class TestGradientSimilarity:
    @pytest.mark.parametrize("family", [gpt2, Recurrent])
    def test_dot_and_cosine(self, family):
        # padding is dropped, and positions begin with the first token: so do the oracle's
        model, train = make(family), make_batch(9, 8)
        dots, norm = expected_scores(model, train)
        found = fitted(model, train, VALIDATION)
        np.testing.assert_allclose(found.scores_, dots, rtol=1e-9)
        norms = mean_gradients(model, train).norm(dim=1).numpy()
        cosine = fitted(model, train, VALIDATION, similarity="cosine").scores_
        np.testing.assert_allclose(cosine, dots / norms / norm, rtol=1e-9)
        assert np.abs(cosine).max() <= 1

    def test_it_is_what_a_step_does(self):
        model, rate = make(Recurrent), 1e-4
        scores, before = fitted(model).scores_, token_log_proba(model, VALIDATION).mean()
        for i in (0, 5):
            stepped = copy.deepcopy(model)
            row = {key: value[i : i + 1] for key, value in TRAIN.items()}
            optimiser = torch.optim.SGD(stepped.parameters(), lr=rate)
            (-token_log_proba(stepped, row).mean()).backward()
            optimiser.step()
            change = float((token_log_proba(stepped, VALIDATION).mean() - before).detach())
            assert change / rate == pytest.approx(scores[i], rel=1e-2)

    def test_sketches_come_near(self):
        model = make(Recurrent)
        exact, sketched = fitted(model).scores_, fitted(model, n_components=2048).scores_
        assert np.corrcoef(exact, sketched)[0, 1] > 0.95
        assert not np.array_equal(exact, sketched)

    def test_adams_second_moments(self):
        model, train = make(Recurrent), make_batch(9, 8)
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
        for _ in range(3):
            optimiser.zero_grad()
            (-token_log_proba(model, TRAIN).mean()).backward()
            optimiser.step()
        scale = torch.cat(
            [(optimiser.state[p]["exp_avg_sq"] / (1 - 0.999**3)).sqrt().flatten() + 1e-8
             for p in model.parameters()]
        )  # fmt: skip
        theirs = -jacobian(token_log_proba(model, VALIDATION).mean()[None], model)[0]
        expected = (mean_gradients(model, train) @ (theirs / scale)).numpy()
        found = fitted(model, train, VALIDATION, optimizer=optimiser).scores_
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    def test_some_parameters(self):
        model = make(Recurrent)
        parts = [fitted(model, parameters=p).scores_ for p in (["embed", "gru"], "head")]
        np.testing.assert_allclose(sum(parts), fitted(model).scores_, rtol=1e-9)


def test_forms_of_batches():
    model = make(Recurrent)
    expected = fitted(model).scores_
    parts = [{key: value[rows] for key, value in TRAIN.items()} for rows in (slice(4), slice(4, 9))]
    rows = [{key: value[i] for key, value in TRAIN.items()} for i in range(9)]
    loader = torch.utils.data.DataLoader(rows, batch_size=4)
    for train in (parts, iter(parts), rows, loader):
        np.testing.assert_allclose(fitted(model, train, [VALIDATION]).scores_, expected, rtol=1e-9)
    selector = fitted(model)
    np.testing.assert_array_equal(selector.lengths_, (TRAIN["labels"] != -100).sum(1))


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
class TestStrategies:
    def test_an_order(self, strategy):
        selector = fitted(make(Recurrent), strategy=strategy)
        assert sorted(selector.order_) == list(range(9))
        assert (np.diff(selector.scores_[selector.order_]) <= 0).all()
        np.testing.assert_array_equal(selector.select(3), selector.order_[:3])
        np.testing.assert_array_equal(selector.select(0.34), selector.order_[:3])
        again = fitted(make(Recurrent), strategy=strategy)
        np.testing.assert_array_equal(again.order_, selector.order_)

    def test_one_sequence(self, strategy):
        model, one = make(Recurrent), make_batch(1, 6)
        np.testing.assert_array_equal(fitted(model, one, one, strategy=strategy).select(1), [0])


def test_a_copy_of_a_sequence_is_redundant():
    train = {key: torch.cat([value, value[2:3]]) for key, value in make_batch(6, 8).items()}
    selector = fitted(make(Recurrent), train, strategy="redundant")
    assert {*selector.order_[-2:]} == {2, 6}


def languages(n, kind, rng):
    """Walks on a ring of words that belong to one language: steps of its own length."""
    start = rng.integers(3, VOCABULARY, size=(n, 1))
    steps = np.where(rng.random((n, 11)) < 0.9, kind + 1, rng.integers(VOCABULARY, size=(n, 11)))
    walk = np.cumsum(np.concatenate([start, steps], 1), 1)
    return torch.from_numpy(walk % VOCABULARY)


def test_the_matching_part_of_a_mixture_is_found():
    """The documentation says with what precision, and beside which controls."""
    rng = np.random.default_rng(0)
    train = torch.cat([languages(40, kind, rng) for kind in range(4)])
    validation = {"input_ids": languages(20, 2, rng)}
    torch.manual_seed(0)
    model = Recurrent()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    warm = torch.cat([languages(16, kind, rng) for kind in range(4)])
    for _ in range(30):
        optimiser.zero_grad()
        logits = model(warm)[:, :-1].flatten(0, 1)
        torch.nn.functional.cross_entropy(logits, warm[:, 1:].flatten()).backward()
        optimiser.step()
    kept = fitted(model, {"input_ids": train}, validation).select(40)
    assert np.mean(kept // 40 == 2) >= 0.8
    by_chance = fitted(model, {"input_ids": train}, strategy="random").select(40)
    assert np.mean(by_chance // 40 == 2) < 0.5


def test_scikit_learns_conventions():
    selector = LanguageSelector(make(Recurrent), strategy="loss")
    assert clone(selector).get_params()["strategy"] == "loss"
    with pytest.raises(NotFittedError):
        selector.select(1)


@pytest.mark.parametrize(
    ("options", "batches", "error", "message"),
    [
        ({"strategy": "best"}, (TRAIN,), ValueError, "'strategy' parameter"),
        ({}, (TRAIN,), ValueError, "compares with a validation set"),
        ({}, ([], VALIDATION), ValueError, "train_batches has no batch"),
        ({}, (3, VALIDATION), TypeError, "train_batches must be a batch"),
        ({}, (TRAIN, 3), TypeError, "validation_batches must be a batch"),
        ({"objective": DPO()}, (TRAIN, VALIDATION), ValueError, "of pairs"),
        ({"objective": "dpo"}, (TRAIN, VALIDATION), ValueError, "of pairs"),
        (
            {"similarity": "cosine", "optimizer": 1},
            (TRAIN, VALIDATION),
            ValueError,
            "optimizer= nee",
        ),
    ],
)
def test_what_is_refused(options, batches, error, message):
    with pytest.raises(error, match=message):
        LanguageSelector(make(Recurrent), **options).fit(*batches)


def test_sequences_without_labels_are_refused():
    rows = [{"input_ids": [4, 5, 6], "labels": [-100] * 3}, {"input_ids": [4, 5, 6]}]
    batches = [{"input_ids": [[4, 5, 6]] * 2, "labels": [[-100, 5, 6], [-100] * 3]}]
    with pytest.raises(ValueError, match="without a labelled token, as number 1"):
        LanguageSelector(make(Recurrent)).fit(batches, VALIDATION)
    with pytest.raises(ValueError, match="different keys"):
        LanguageSelector(make(Recurrent)).fit(rows, VALIDATION)


def test_an_optimiser_of_another_model_is_refused():
    optimiser = torch.optim.Adam(make(Recurrent).parameters())
    with pytest.raises(ValueError, match=r"no second moment of the parameter 'embed\.weight'"):
        fitted(make(Recurrent), optimizer=optimiser)


@pytest.mark.parametrize("n", [0, 10, 1.5, -0.1, True, "all"])
def test_numbers_that_are_refused(n):
    with pytest.raises(ValueError, match="n must be an int from 1 to 9"):
        fitted(make(Recurrent)).select(n)
