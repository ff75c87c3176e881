"""Hidden rewards against the double sum of their definition."""

import math

import pytest
import torch

from sklearn_lpntk.language import nthr_advantages, nthr_scores

G, T, D, V = 6, 5, 4, 12


def group(seed=0, rewards=(1, 0, 1, 0, 0, 0)):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(G, T, D, generator=generator).double()
    logits = torch.randn(G, T, V, generator=generator).double()
    ids = torch.randint(V, (G, T), generator=generator)
    mask = (torch.arange(T) < torch.tensor([5, 4, 3, 5, 2, 4])[:, None]).long()
    return hidden, logits, ids, mask, torch.tensor(rewards, dtype=torch.float64)


def by_definition(hidden, logits, ids, mask, rewards, beta, columns=slice(None)):
    """Scores of the wrong answers' tokens as a dict, and the threshold."""
    error = -torch.softmax(logits, 2)
    for i in range(G):
        for t in range(T):
            error[i, t, ids[i, t]] += 1
    error = error[:, :, columns]
    tokens = [(i, t) for i in range(G) for t in range(T) if mask[i, t]]
    right = [i for i in range(G) if rewards[i] > 0]

    def score(j, u):
        return sum(
            float(error[i, t] @ error[j, u]) * float(hidden[i, t] @ hidden[j, u])
            for i, t in tokens
            if i in right
        )

    own = [sum(score(i, t) for k, t in tokens if k == i) / int(mask[i].sum()) for i in right]
    return {(j, u): score(j, u) for j, u in tokens if j not in right}, beta * min(own)


@pytest.mark.parametrize("vocabulary", ["full", "group"])
def test_the_matrix_form_is_the_double_sum(vocabulary):
    given = group()
    _, _, ids, mask, _ = given
    columns = slice(None) if vocabulary == "full" else ids[mask.bool()].unique()
    expected, threshold = by_definition(*given, 0.7, columns)
    found = nthr_scores(*given, beta=0.7, vocabulary=vocabulary)
    assert found.threshold == pytest.approx(threshold, rel=1e-10)
    for j in range(G):
        for u in range(T):
            if (j, u) in expected:
                assert float(found.scores[j, u]) == pytest.approx(expected[j, u], rel=1e-9)
            else:
                assert math.isnan(found.scores[j, u])
            assert bool(found.selected[j, u]) == (expected.get((j, u), -math.inf) > threshold)


def test_advantages_of_selected_tokens_are_scaled():
    given = group(3)
    selected = nthr_scores(*given, beta=0.1).selected
    assert selected.any()
    advantages = torch.tensor([1.0, -1, 2, -2, -3, -4])
    found = nthr_advantages(advantages, *given, beta=0.1, eta=0.25)
    expected = torch.where(selected, 0.25, 1.0) * advantages[:, None]
    assert torch.equal(found, expected)
    balanced = nthr_advantages(advantages, *given, beta=0.1)
    assert torch.allclose(
        balanced, torch.where(selected, 2 * (0.5 - 2 / 6), 1.0) * advantages[:, None]
    )
    by_token = advantages[:, None].expand(G, T)
    assert torch.equal(nthr_advantages(by_token, *given, beta=0.1, eta=0.25), found)


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_groups_all_alike_are_unchanged(reward):
    given = group(rewards=(reward,) * G)
    advantages = torch.randn(G)
    assert torch.equal(nthr_advantages(advantages, *given), advantages[:, None].expand(G, T))
    found = nthr_scores(*given)
    assert found.scores.isnan().all()
    assert not found.selected.any()
    assert math.isnan(found.threshold)


def test_a_shared_token_is_selected_before_a_wrong_one():
    """Two answers that agree up to their last token: the shared one holds up the right answer."""
    hidden = torch.zeros(2, 2, 3)
    hidden[:, 0, 0] = hidden[:, 1, 1] = 3.0
    logits = torch.zeros(2, 2, 5)
    ids = torch.tensor([[0, 1], [0, 2]])
    found = nthr_scores(hidden, logits, ids, torch.ones(2, 2), torch.tensor([1.0, 0.0]), beta=0.5)
    assert found.selected.tolist() == [[False, False], [True, False]]


def test_an_empty_answer_counts_for_nothing():
    hidden, logits, ids, mask, rewards = group()
    mask[0] = 0
    found = nthr_scores(hidden, logits, ids, mask, rewards)
    rows = [1, 2, 3, 4, 5]
    again = nthr_scores(hidden[rows], logits[rows], ids[rows], mask[rows], rewards[rows] + 1e-3)
    assert found.threshold == again.threshold
    torch.testing.assert_close(found.scores[rows], again.scores, equal_nan=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": torch.zeros(G, T + 1, D)}, "hidden must have shape"),
        ({"logits": torch.zeros(G, T)}, "hidden must have shape"),
        ({"completion_ids": torch.zeros(G, T + 1).long()}, "completion_ids must have shape"),
        ({"completion_ids": torch.full((G, T), V)}, "logits 12 columns"),
        ({"completion_mask": torch.ones(G)}, "completion_mask must have shape"),
        ({"rewards": torch.ones(G - 1)}, r"rewards must have shape \(6,\)"),
        ({"rewards": torch.ones(G, 1)}, r"rewards must have shape \(6,\)"),
        ({"rewards": torch.full((G,), torch.nan)}, "rewards must be finite"),
        ({"vocabulary": "top"}, "vocabulary must be one of"),
        ({"eta": -1}, "eta must be"),
        ({"eta": "half"}, "eta must be"),
        ({"advantages": torch.zeros(G + 1)}, "advantages must have shape"),
    ],
)
def test_what_is_refused(change, message):
    names = "hidden", "logits", "completion_ids", "completion_mask", "rewards"
    options = dict(zip(names, group())) | {"advantages": torch.zeros(G)} | change
    with pytest.raises(ValueError, match=message):
        nthr_advantages(**options)
