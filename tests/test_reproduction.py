"""The harness of the reproduction: what its numbers rest on."""

import copy
import json

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp, ttest_rel

from benchmarks import bench_linearized
from benchmarks.reproduction import (
    criterion,
    forgetting,
    gcv_risk,
    infinite,
    lookahead,
    pruning,
    ranking,
    rare,
    rules,
    rules_report,
)
from benchmarks.reproduction.data import load, split
from benchmarks.reproduction.records import Records
from benchmarks.reproduction.training import RECIPES, Recipe, train
from sklearn_lpntk.active import lookahead_scores
from sklearn_lpntk.dynamics import ForgettingPrediction
from sklearn_lpntk.linearized import NTKClassifier


def test_records_survive_a_kill(tmp_path):
    path = tmp_path / "some" / "file.jsonl"
    records = Records(path, ("a", "b"))
    records.append({"a": 1, "b": 2, "score": 0.5})
    with path.open("a") as file:
        file.write('{"a": 1, "b": 3, "sco')  # torn
    again = Records(path, ("a", "b"))
    assert again.rows == [{"a": 1, "b": 2, "score": 0.5}]
    assert {"a": 1, "b": 2} in again
    assert {"a": 1, "b": 3} not in again
    again.append({"a": 1, "b": 3, "score": 1})
    assert [json.loads(line)["b"] for line in path.read_text().splitlines()] == [2, 3]


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def test_splits_do_not_overlap_and_test_labels_are_right(digits):
    X = digits[0]
    clean, noisy = (split(digits, "digits", 3, noise=noise) for noise in (0, 0.2))
    np.testing.assert_array_equal(clean.X, noisy.X)
    assert not clean.is_wrong.any()
    assert noisy.is_wrong.sum() == round(0.2 * len(noisy.y))
    np.testing.assert_array_equal(noisy.y != clean.y, noisy.is_wrong)
    assert (noisy.y_validation != clean.y_validation).sum() == 40
    np.testing.assert_array_equal(noisy.y_test, clean.y_test)
    parts = [part.reshape(len(part), -1) for part in (clean.X, clean.X_validation, clean.X_test)]
    assert sum(map(len, parts)) == len(X)
    rows = {row.tobytes() for part in parts for row in part}
    assert len(rows) == len({row.tobytes() for row in X.reshape(len(X), -1)})


def test_a_short_arm_is_the_beginning_of_a_long_one(digits):
    part = split(digits, "digits", 0)
    recipe = Recipe(RECIPES["digits"].module, 60)
    data = part.X, part.y, (part.X_validation, part.y_validation), 0
    both = train(recipe, *data, {"long": 60, "short": 20})
    alone = train(recipe, *data, {"short": 20})
    assert both["short"][1:] == alone["short"][1:]
    for p, q in zip(both["short"][0].parameters(), alone["short"][0].parameters(), strict=True):
        assert torch.equal(p, q)
    assert both["long"][2] >= both["short"][2]


def test_a_run_goes_on_where_it_stopped(digits, tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPES, "digits", Recipe(RECIPES["digits"].module, 12))
    records = Records(tmp_path / "r.jsonl", criterion.KEYS)
    options = {"n_train": 300}
    criterion.run("digits", digits, [0.1], [0], ["random", "el2n"], [0.5], records, **options)
    assert {r["strategy"] for r in records.rows} == {"all", "random", "el2n"}
    assert [r["n_kept"] for r in records.rows] == [300, 150, 150]
    lines = records.path.read_text().splitlines(keepends=True)
    records.path.write_text("".join(lines[:2]))
    again = Records(records.path, criterion.KEYS)
    criterion.run("digits", digits, [0.1], [0], ["random", "el2n"], [0.5], again, **options)
    drop = [{k: v for k, v in r.items() if k != "scoring_cpu_s"} for r in again.rows]
    assert drop == [{k: v for k, v in r.items() if k != "scoring_cpu_s"} for r in records.rows]


def test_the_best_control_is_what_a_strategy_is_compared_with():
    rows = [
        {"noise": 0.0, "strategy": s, "kept": 0.5, "steps": score}
        for s, scores in (
            ("herding", (0.9, 0.9)),
            ("random", (0.8, 0.9)),
            ("k_center", (0.91, 0.93)),
            ("redundant", (0.99, 0.99)),  # no control
        )
        for score in scores
    ]
    ((noise, kept, difference, se),) = criterion.against_controls(rows, "herding")
    assert (noise, kept) == (0.0, 0.5)
    np.testing.assert_allclose([difference, se], [-2, 1])
    assert "by more in 1: -2.0 (s.e. 1.0) at 50% kept" in criterion.described(rows, "herding")
    assert criterion.verdict(rows, ["herding"]).startswith("no rule wins")
    assert criterion.verdict(rows, ["herding", "redundant"]).endswith("s.e.: redundant")


def test_tests_are_over_the_seeds_that_have_all_three():
    """Random subsets are missing in seed 3, another control has one seed only."""
    scores = {
        "all": (0.9, 0.8, 0.7, 0.6),
        "recipe": (0.5, 0.6, 0.7, 0.9),
        "random": (0.6, 0.6, 0.8),
    }
    rows = [
        {"recipe": "all" if by == "all" else "head", "chosen_by": by, "seed": s, "steps": v}
        for by, values in (scores | {"el2n": (0.3,)}).items()
        for s, v in enumerate(values)
    ]
    found, against_random, no_worse = pruning.compared(rows, "head", "steps")
    assert found["el2n"].tolist() == [0.3]
    assert against_random.pvalue == ttest_rel(scores["recipe"][:3], scores["random"]).pvalue
    loss = np.subtract(scores["recipe"][:3], scores["all"][:3])
    assert no_worse.pvalue == ttest_1samp(loss, -0.005, alternative="greater").pvalue
    assert pruning.verdict(rows, ["head"]) == "no different from random: head (p < 0.05)"
    text = pruning.described([r | {"n_kept": 5} for r in rows], "head")
    assert (
        "all 80.00, recipe 60.00, random 66.67, el2n 30.00 [1 seeds] %; against random t(2)" in text
    )


@pytest.mark.filterwarnings("ignore:.*labels were changed")
class TestInfinite:
    def test_noise(self):
        y = np.arange(1000) % 10
        noisy, wrong = infinite.with_noise(y, 0.2, 0)
        np.testing.assert_array_equal(np.sort(wrong), np.flatnonzero(noisy != y))
        assert len(wrong) == 200
        noisy, wrong = infinite.with_noise(y, 0.3, 0, kind="asymmetric")
        assert {*zip(y[wrong], noisy[wrong])} == {(7, 1), (3, 8)}
        assert len(wrong) == 60

    def test_every_claim_is_run_and_reported(self, digits, monkeypatch):
        monkeypatch.setattr(infinite, "N_STEPS", 40)
        for claim, run in infinite.CLAIMS.items():
            draws = [list(run(digits, seed, 150)) for seed in (0, 1)]
            json.dumps(draws)
            row = infinite.REPORTS[claim]("digits", draws)
            assert set(row) == {"claim", "paper", "here", "verdict"}
            assert "nan" not in row["here"]

    def test_as_many_flips_as_wrong_labels(self, digits):
        rows = list(infinite.refurbishment(digits, 0, 300))
        for row in rows:
            if row["rule"] != "margin .3":
                share = row["noise"] if row["kind"] == "symmetric" else None
                assert share is None or row["touched"] <= share + 1e-9
        (clean,) = (r for r in rows if r["noise"] == 0 and r["rule"] == "margin .3")
        assert clean["right_before"] == 1
        assert clean["right_after"] > 0.97


def test_counts_of_forgetting_and_of_its_control():
    found = ForgettingPrediction(
        iterations=np.zeros(5, int),
        samples=np.arange(5),
        margins=np.array([0.1, 0.5, 0.2, 0.9, 0.3]),
        predicted=np.array([False, True, True, False, False]),
        actual=np.array([False, True, False, True, False]),
        state_dict={},
    )
    counts = forgetting.counts(found)
    assert counts == {"n_candidates": 5, "tp": 1, "fp": 1, "fn": 1, "control_tp": 0}
    summary = forgetting.summary([counts, counts])
    assert summary["n_events"] == 4
    assert summary["precision"][0] == summary["recall"][0] == summary["f1"][0] == 0.5
    assert summary["control_f1"] == 0


def test_forgetting_goes_on_where_it_was_killed(digits, tmp_path, monkeypatch):
    X, y, *_ = digits
    monkeypatch.setitem(forgetting.STARTS, "digits", (RECIPES["digits"].module, 60))
    monkeypatch.setattr(forgetting, "CHUNK", 5)
    monkeypatch.setattr(forgetting, "LEARNING_RATE", 0.05)
    keys = "seed", "training_mode", "chunk"
    options = {"seed": 0, "training_mode": False}
    paths = [tmp_path / name for name in ("whole", "part")]
    whole, part = (Records(path / "r.jsonl", keys) for path in paths)
    forgetting.run("digits", X, y, whole, n_events=30, folder=paths[0], **options)
    n = whole.rows[0]["tp"] + whole.rows[0]["fn"]
    forgetting.run("digits", X, y, part, n_events=n, folder=paths[1], **options)
    assert 0 < len(part.rows) < len(whole.rows)
    part.path.write_text("")  # killed before the row was written
    part = Records(part.path, keys)
    forgetting.run("digits", X, y, part, n_events=30, folder=paths[1], **options)
    assert part.rows == whole.rows
    with pytest.raises(FileNotFoundError, match="weights after the last"):
        forgetting.run("digits", X, y, part, n_events=10**6, folder=tmp_path, **options)


def test_one_step_changes_are_those_of_a_small_step():
    """The control of the look-ahead: a step of gradient descent on a candidate and its label."""
    rng = np.random.default_rng(0)
    X, seen = (rng.normal(size=(n, 1, 2, 2)).astype(np.float32) for n in (3, 5))
    labels = np.array([1, 4, 7])
    for loss in lookahead.LOSSES:
        torch.manual_seed(0)
        net = lookahead.Net(4)
        found = lookahead.one_step_changes(net, X, labels, seen, loss)
        before, rate = lookahead.logits(net, seen), 1e-3
        for j, label in enumerate(labels):
            other = copy.deepcopy(net)
            z, y = other(torch.as_tensor(X[[j]])), torch.tensor([label])
            one_hot = torch.nn.functional.one_hot(y, 10)
            half_squares = ((z - one_hot) ** 2).sum() / 2
            cross_entropy = torch.nn.functional.cross_entropy(z, y)
            (half_squares if loss == "squares" else cross_entropy).backward()
            with torch.no_grad():
                for p in other.parameters():
                    p -= rate * p.grad
            change = (lookahead.logits(other, seen) - before) / rate
            np.testing.assert_allclose(found[:, j], change, rtol=0.05, atol=0.02)


def test_rankings_and_risks_are_summed_up():
    rows = [
        {"gcv": {"a": 0.1, "b": 0.2, "c": 0.3}, "accuracy": {"a": 0.9, "b": 0.8, "c": 0.7}},
        {"gcv": {"a": 0.3, "b": 0.2, "c": 0.1}, "accuracy": {"a": 0.9, "b": 0.8, "c": 0.7}},
    ]
    np.testing.assert_allclose(ranking.taus(rows), [1, -1])
    risks = [{"gcv": [3, 1, 2], "test_risk": [4, 3, 2]}, {"gcv": [1, 2, 3], "test_risk": [1, 2, 3]}]
    np.testing.assert_allclose(gcv_risk.excess(risks), [1.5, 1])
    assert gcv_risk.correlation(risks[1:], "gcv") == pytest.approx(1)


def test_a_naive_look_ahead_gives_the_same_scores():
    X, y = load("digits")[:2]
    X, y = X[:40].reshape(40, -1), y[:40]
    torch.manual_seed(0)
    net = torch.nn.Linear(X.shape[1], 10).double()
    K = NTKClassifier(net).fit(X, y).kernel_matrix(X)
    f = lookahead.logits(net, X.astype(np.float64))
    labels, residual = np.eye(10)[f[10:].argmax(1)], np.eye(10)[y[:10]] - f[:10]
    shift = 1e-6 * np.trace(K[:10, :10]) / 10
    blocks = K[:10, :10], K[10:, :10], K[10:, 10:]
    naive = bench_linearized.one_by_one(*blocks, residual, shift, labels, f[10:])
    np.testing.assert_allclose(naive, lookahead_scores(net, X[:10], y[:10], X[10:]), rtol=1e-9)


def test_rules_against_random_rows():
    """Paired by draw; a claim that fails is told by its number."""
    accuracies = {"random": (0.5, 0.6), "clean_herding": (0.49, 0.57), "loo_rbf": (0.6, 0.8)}
    rows = [
        {
            "data": "d", "net": "own", "kind": "uniform", "noise": noise, "seed": seed,
            "strategy": rule, "kept": 0.2, "accuracy": accuracy,
        }
        for noise in (0.0, 0.2)
        for rule, values in accuracies.items()
        for seed, accuracy in enumerate(values)
    ]  # fmt: skip
    whole = [row | {"strategy": "all"} for row in rows if row["strategy"] == "random"]
    cells = rules_report.Cells(rows + whole)
    np.testing.assert_allclose(cells.gains(("uniform", 0.0, 0.2), "clean_herding"), [-1, -3])
    told = rules_report.claims(cells)
    assert "1. not below random without wrong labels: -2.0 at 20%" in told
    assert "5 to 20 % kept: -2.0" in told
    assert "0 of 1 cells" in told
    assert "-2.0 (1.0)" in rules_report.table(cells)


@pytest.mark.parametrize("kind", ["uniform", "similar"])
def test_wrong_labels_of_the_rules(kind):
    X = np.repeat([[0.0], [1.0], [5.0]], 20, axis=0)
    y = np.repeat([0, 1, 2], 20)
    noisy = rules.with_noise(X, y, kind, 0.2, np.random.default_rng(0))
    assert (noisy != y).sum() == 12
    if kind == "similar":
        assert {(a, b) for a, b in zip(y, noisy) if a != b} == {(0, 1), (1, 0), (2, 1)}


def test_rules_run_on_a_table(tmp_path):
    path = tmp_path / "rules_wine.jsonl"
    records = Records(path, rules.KEYS)
    draw = "wine", "uniform", 0.2, 0
    cells = [("all", 1.0), ("random", 0.5), ("clean_herding", 0.5)]
    rules.run_draw(draw, "own", cells, records)
    assert [row["strategy"] for row in records.rows] == ["all", "random", "clean_herding"]
    assert records.rows[2]["share_wrong"] < records.rows[1]["share_wrong"]
    rules.run_draw(draw, "own", cells, records)
    assert len(records.rows) == 3


def test_rare_classes_keep_a_tenth_and_are_weighted_alike():
    X, y, X_test, y_test = rare.imbalanced("cancer", 0)
    assert len(X) == len(y)
    assert len(X_test) == len(y_test)
    shares = np.bincount(y) / len(y)
    assert 0.05 < shares[1] < 0.2
    rows = [
        {"data": "cancer", "kind": "uniform", "noise": 0.0, "seed": 0, "strategy": rule}
        | {"accuracy": 0.5 + k / 100, "balanced": 0.4 + k / 50}
        for k, rule in enumerate(rare.RULES)
    ]
    table = rare.table(rows)
    assert "50.0 / 40.0" in table
    assert "+3.0 / +6.0" in table
