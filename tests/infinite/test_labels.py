"""Z, the error, its gradients and leave-one-out scores, against what they are by definition."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sklearn_lpntk import _gram as gram_module
from sklearn_lpntk.infinite import (
    block_diagonalization_error,
    block_diagonalization_gradient,
    class_distance_ratio,
    class_entanglement,
    compare_label_schemes,
    infinite_ntk_kernel,
    label_interaction_matrix,
    leave_one_out_scores,
    rank_biased_overlap,
)

N, K = 40, 4
RNG = np.random.default_rng(0)
Y = np.repeat(np.arange(K), [7, 13, 8, 12])[RNG.permutation(N)]
H = infinite_ntk_kernel(RNG.normal(size=(N, 6)) + np.eye(6)[Y])


def inverse(ridge):
    return np.linalg.inv(H + ridge * np.trace(H) / N * np.eye(N))


def error_by_definition(labels, ridge, beta, *, counts=None):
    """Of a label matrix with any entries; the counts are its column sums unless given."""
    Z = labels.T @ inverse(ridge) @ labels
    n = labels.sum(0) if counts is None else counts
    error = sum(Z[k, k] / (n[k] * (n[k] - 1)) for k in range(K)) / K
    mixed = sum(Z[k, d] / (n[k] * n[d]) for k in range(K) for d in range(K) if d != k)
    return error - beta / (K * K - K) * mixed


@pytest.mark.parametrize("ridge", [0.01, 0.3])
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.5])
class TestError:
    def test_by_definition(self, ridge, beta):
        got = block_diagonalization_error(H, Y, beta=beta, ridge=ridge)
        assert_allclose(got, error_by_definition(np.eye(K)[Y], ridge, beta), rtol=1e-10)

    @pytest.mark.parametrize("count_gradient", [False, True])
    def test_gradient_by_finite_differences(self, ridge, beta, count_gradient):
        labels, step = np.eye(K)[Y], 1e-4
        counts = None if count_gradient else labels.sum(0)
        G = block_diagonalization_gradient(
            H, Y, beta=beta, ridge=ridge, count_gradient=count_gradient
        )
        for i, k in RNG.integers(0, [N, K], (30, 2)):
            above, below = labels.copy(), labels.copy()
            above[i, k] += step
            below[i, k] -= step
            difference = error_by_definition(above, ridge, beta, counts=counts)
            difference -= error_by_definition(below, ridge, beta, counts=counts)
            assert_allclose(G[i, k], difference / (2 * step), rtol=0, atol=1e-7 * np.abs(G).max())

    def test_permuted_samples_and_renamed_classes(self, ridge, beta):
        error = block_diagonalization_error(H, Y, beta=beta, ridge=ridge)
        order = RNG.permutation(N)
        permuted = block_diagonalization_error(
            H[np.ix_(order, order)], Y[order], beta=beta, ridge=ridge
        )
        renamed = block_diagonalization_error(H, np.array(list("dbca"))[Y], beta=beta, ridge=ridge)
        assert_allclose([permuted, renamed], error, rtol=1e-10)
        # and it does see which sample has which label
        moved = block_diagonalization_error(H, Y[order], beta=beta, ridge=ridge)
        assert abs(moved / error - 1) > 1e-3


def test_interaction_matrix():
    Z, classes = label_interaction_matrix(H, np.array(list("abcd"))[Y], ridge=0.2)
    assert classes.tolist() == list("abcd")
    assert_allclose(Z, np.eye(K)[Y].T @ inverse(0.2) @ np.eye(K)[Y], rtol=1e-10)


@pytest.mark.parametrize("ridge", [0.01, 0.5])
def test_leave_one_out_by_deletion(ridge):
    scores = leave_one_out_scores(H, Y, ridge=ridge)
    A = H + ridge * np.trace(H) / N * np.eye(N)
    for i in range(N):
        rest = np.delete(np.arange(N), i)
        weights = np.linalg.solve(A[np.ix_(rest, rest)], np.eye(K)[Y[rest]])
        assert_allclose(scores[i], H[i, rest] @ weights, rtol=1e-9, atol=1e-12)


class TestSchemes:
    def test_errors_and_ranks(self):
        noisy = np.where(np.arange(N) % 4 == 0, (Y + 1) % K, Y)
        found = compare_label_schemes(H, [noisy, Y, RNG.permutation(Y)], ridge=0.1)
        singly = [block_diagonalization_error(H, y, ridge=0.1) for y in (noisy, Y)]
        assert_allclose(found.errors[:2], singly, rtol=1e-12)
        assert sorted(found.ranks) == [1, 2, 3]
        assert (found.errors[np.argsort(found.ranks)] == np.sort(found.errors)).all()

    def test_one_factorisation(self, monkeypatch):
        calls = []
        original = gram_module.dpotrf
        monkeypatch.setattr(
            gram_module, "dpotrf", lambda *a, **k: calls.append(1) or original(*a, **k)
        )
        compare_label_schemes(H, [Y, Y, Y])
        assert len(calls) == 1

    def test_the_number_of_classes_is_that_of_all(self):
        two = np.minimum(Y, 1)
        together = compare_label_schemes(H, [two, Y]).errors[0]
        assert_allclose(together, block_diagonalization_error(H, two, classes=range(K)))
        assert abs(together / block_diagonalization_error(H, two) - 1) > 0.1

    def test_equal_errors_have_equal_ranks(self):
        noisy = np.where(np.arange(N) % 4 == 0, (Y + 1) % K, Y)
        assert compare_label_schemes(H, [noisy, Y, Y]).ranks.tolist() == [1, 2, 2]

    def test_the_same_partition_by_other_names(self):
        schemes = compare_label_schemes(H, [Y, (Y + 1) % K, (Y + 3) % K, K - 1 - Y])
        assert schemes.ranks.tolist() == [1, 1, 1, 1]
        again = compare_label_schemes(H, (y for y in [Y, (Y + 1) % K]))
        assert_allclose(again.errors, schemes.errors[:2])

    def test_one_labelling_that_is_no_sequence_of_them(self):
        with pytest.raises(ValueError, match=r"got one labelling. Pass \[y\]"):
            compare_label_schemes(H, Y)

    def test_nothing(self):
        with pytest.raises(ValueError, match="ys is empty"):
            compare_label_schemes(H, [])


@pytest.mark.parametrize("n", [N, 300])
def test_the_inverse_is_symmetric_and_one(n):
    """Also beyond the blocks in which the other triangle is filled."""
    A = RNG.normal(size=(n, n + 5))
    A = A @ A.T
    M = gram_module.Factor(A, 0.1).inverse()
    wanted = np.linalg.inv(A + 0.1 * np.trace(A) / n * np.eye(n))
    assert_allclose(M, wanted, rtol=0, atol=1e-10 * np.abs(wanted).max())
    np.testing.assert_array_equal(M, M.T)


def test_asymmetry_is_seen_wherever_it_is():
    A = np.eye(600)
    for place in ((0, 1), (1, 599), (300, 20), (599, 598)):
        crooked = A.copy()
        crooked[place] = 0.01
        with pytest.raises(ValueError, match=rf"H\[{place[0]}, {place[1]}\] is 0\.01"):
            gram_module.checked_gram(crooked)


def test_asymmetry_is_measured_by_the_diagonal():
    """A large sample hides nothing of small ones, and rounding is averaged out."""
    A = H.copy()
    A[0] *= 1e6
    A[:, 0] *= 1e6
    A[3, 4] *= 1.01
    with pytest.raises(ValueError, match="H must be symmetric"):
        gram_module.checked_gram(A)
    coarse = H * (1 + 1e-6 * RNG.normal(size=H.shape))
    Z, _ = label_interaction_matrix(coarse, Y)
    assert_allclose(Z, label_interaction_matrix(coarse.T, Y)[0], rtol=1e-12)


def test_indefinite_matrices_are_refused_and_rounding_is_not():
    B = RNG.normal(size=(60, 60))
    labels = np.arange(60) % 3
    with pytest.raises(ValueError, match="not positive semidefinite"):
        leave_one_out_scores(B + B.T + 2 * np.eye(60), labels)
    P = RNG.normal(size=(60, 3))
    with pytest.raises(ValueError, match="not positive semidefinite"):
        label_interaction_matrix(1 + np.linalg.norm(P[:, None] - P, axis=2), labels)
    A = RNG.normal(size=(800, 50)).astype(np.float32)
    with pytest.warns(UserWarning, match="not positive definite with ridge=0") as caught:
        leave_one_out_scores(A @ A.T, np.arange(800) % 2, ridge=0)
    assert caught[0].filename == __file__


class TestEntanglement:
    def test_rankings(self):
        """Classes 0 and 1 overlap, class 2 is scattered, class 3 is far from all."""
        rng = np.random.default_rng(1)
        centres = np.array([[4, 0, 0], [4, 0.5, 0], [0, 4, 0], [0, 0, 8.0]])
        spread = np.array([0.2, 0.2, 2.0, 0.2])
        y = np.repeat(np.arange(4), 30)
        X = centres[y] + spread[y, None] * rng.normal(size=(120, 3))
        found = class_entanglement(infinite_ntk_kernel(X), np.array(list("wxyz"))[y])
        assert found.inter_rankings[0, 0] == "x"
        assert found.inter_rankings[1, 0] == "w"
        assert found.intra_ranking[-1] == "z"
        assert np.isnan(np.diag(found.inter)).all()
        assert_allclose(found.inter, found.inter.T)
        Z, _ = label_interaction_matrix(infinite_ntk_kernel(X), y)
        assert_allclose(found.intra, np.diag(Z) / 30)
        assert_allclose(found.inter[0, 1:], -Z[0, 1:] / 900)
        assert found.inter_rankings.shape == (4, 3)
        assert all(set(row) == set("wxyz") - {c} for row, c in zip(found.inter_rankings, "wxyz"))


class TestOverlap:
    @given(st.permutations(range(10)), st.floats(0.05, 1.0))
    @settings(deadline=None)
    def test_identical_and_symmetric(self, ranking, p):
        assert rank_biased_overlap(ranking, ranking, p=p) == pytest.approx(1)
        other = list(range(10))
        overlap = rank_biased_overlap(ranking, other, p=p)
        assert overlap == pytest.approx(rank_biased_overlap(other, ranking, p=p))
        assert 0 <= overlap <= 1 + 1e-12

    def test_average_overlap_of_the_published_example(self):
        """Webber et al. (2010), section 2: overlaps to depth 7 of these two lists."""
        a, b = "abcdefg", "zcavwxy"
        wanted = [0.0, 0.0, 0.222, 0.292, 0.313, 0.317, 0.312]
        got = [rank_biased_overlap(a[:d], b[:d], p=1) for d in range(1, 8)]
        assert_allclose(got, wanted, atol=6e-4)

    def test_extrapolation(self):
        """The infinite sum, with the last agreement going on for ever."""
        a, b, p = "abcdefg", "zcavwxy", 0.9
        agreement = [0, 0, 2 / 3, 2 / 4, 2 / 5, 2 / 6, *[2 / 7] * 1000]
        total = (1 - p) * sum(p**d * x for d, x in enumerate(agreement))
        assert rank_biased_overlap(a, b, p=p) == pytest.approx(total, abs=1e-12)

    def test_disjoint(self):
        assert rank_biased_overlap("abc", "xyz") == 0

    @pytest.mark.parametrize(
        ("a", "b", "p", "message"),
        [
            ("ab", "abc", 0.9, "same length"),
            ("", "", 0.9, "same length"),
            ("aa", "ab", 0.9, "ranking a has an item twice"),
            ("ab", "ba", 0, r"p must be in \(0, 1\]"),
            ("ab", "ba", 1.5, r"p must be in \(0, 1\]"),
        ],
    )
    def test_errors(self, a, b, p, message):
        with pytest.raises(ValueError, match=message):
            rank_biased_overlap(a, b, p=p)


class TestDistanceRatio:
    def test_by_loops(self):
        P = RNG.normal(size=(N, 3))
        pairs = [(i, j) for i in range(N) for j in range(i)]
        inter = [np.linalg.norm(P[i] - P[j]) for i, j in pairs if Y[i] != Y[j]]
        intra = [np.linalg.norm(P[i] - P[j]) for i, j in pairs if Y[i] == Y[j]]
        assert class_distance_ratio(P, Y) == pytest.approx(np.mean(inter) / np.mean(intra))

    def test_far_from_the_origin(self):
        P = RNG.normal(size=(N, 3))
        ratio = class_distance_ratio(P, Y)
        assert class_distance_ratio(P + 1e8, Y) == pytest.approx(ratio, rel=1e-6)

    def test_equal_but_for_rounding(self):
        P = np.repeat(RNG.normal(size=(3, 5)), 20, axis=0) * (1 + 1e-15 * RNG.normal(size=(60, 5)))
        with pytest.raises(ValueError, match="All samples of each class are equal"):
            class_distance_ratio(P, np.repeat(np.arange(3), 20))

    def test_undefined(self):
        with pytest.raises(ValueError, match="No class of y has two samples"):
            class_distance_ratio(np.eye(3), [0, 1, 2])
        with pytest.raises(ValueError, match="All samples of each class are equal"):
            class_distance_ratio(np.array([[0.0], [0.0], [1.0], [1.0]]), [0, 0, 1, 1])


class TestSingleSamples:
    y = np.where(np.arange(N) == 5, 9, Y % 2)

    def test_left_out_of_the_first_term_with_a_warning(self):
        labels, n = np.eye(3)[np.searchsorted([0, 1, 9], self.y)], np.bincount(self.y)[[0, 1, 9]]
        Z = labels.T @ inverse(0.1) @ labels
        wanted = sum(Z[k, k] / (n[k] * (n[k] - 1)) for k in (0, 1)) / 3
        wanted -= sum(Z[k, d] / (n[k] * n[d]) for k in range(3) for d in range(3) if d != k) / 6
        with pytest.warns(UserWarning, match=r"classes \[9\] have one sample"):
            assert_allclose(block_diagonalization_error(H, self.y), wanted, rtol=1e-10)
        with pytest.warns(UserWarning, match="one sample"):
            assert np.isfinite(block_diagonalization_gradient(H, self.y)).all()


FUNCTIONS = [
    label_interaction_matrix,
    block_diagonalization_error,
    block_diagonalization_gradient,
    leave_one_out_scores,
    class_entanglement,
]


@pytest.mark.parametrize("function", FUNCTIONS)
class TestErrors:
    @pytest.mark.parametrize(
        ("H", "y", "message"),
        [
            (H, np.zeros(N), "one class only"),
            (H, np.append(Y, 1), "y has 41 labels, and H is of 40 samples"),
            (H[:, :-1], Y, "must be a Gram matrix of shape"),
            (H + np.triu(np.ones((N, N)), 1), Y, "H must be symmetric"),
            (np.where(np.eye(N) > 0, np.nan, H), Y, "H contains NaN"),
            (-H, Y, "mean of the diagonal of H is -"),
            (H - 2 * np.eye(N) * np.arange(N), Y, "diagonal|positive semidefinite"),
            (H, np.where(Y == 0, np.nan, Y), "y contains NaN"),
            (H, RNG.normal(size=N), "Unknown label type"),
            (H, np.where(Y == 0, None, Y.astype(str)), "missing labels"),
            (None, Y, "Expected 2D array, got scalar"),
            (H, pd.Series(["a", "b", pd.NA, "a"] * 10, dtype="string"), "missing labels"),
            (H, np.array(["2020", "NaT"] * 20, "M8[Y]"), "missing labels"),
            (
                H,
                np.array(["a", 1, "b", 2] * 10, dtype=object),
                "y mixes labels of the types int, str",
            ),
        ],
    )
    def test_bad_input(self, function, H, y, message):
        with pytest.raises(ValueError, match=message):
            function(H, y)

    def test_ridge(self, function):
        with pytest.raises(ValueError, match="ridge must be a number of at least 0; got -1"):
            function(H, Y, ridge=-1)

    def test_a_singular_matrix_gets_a_larger_ridge(self, function):
        x = RNG.normal(size=(N, 2))
        with pytest.warns(UserWarning, match=r"not positive definite with ridge=0"):
            found = function(x @ x.T, Y, ridge=0.0)
        values = found[0] if isinstance(found, tuple) else found
        assert np.isfinite(values).all()

    def test_memory(self, function, monkeypatch):
        monkeypatch.setattr(gram_module, "available", lambda device: 8 * 30 * 30)
        with pytest.raises(ValueError, match=r"Factorising H of 40 .* up to 30 samples would fit"):
            function(H, Y)
        with pytest.raises(ValueError, match=r"Converting H of 40 .* up to 30 samples would fit"):
            function(H.astype(np.float32), Y)


def test_not_psd():
    indefinite = H - 1.01 * np.linalg.eigvalsh(H)[-1] * np.ones((N, N)) / N
    with pytest.raises(ValueError, match="not positive semidefinite"):
        label_interaction_matrix(indefinite, Y, ridge=1e-6)


def test_beta():
    with pytest.raises(ValueError, match="beta must be a number of at least 0; got -1"):
        block_diagonalization_error(H, Y, beta=-1)


def test_labels_outside_the_classes():
    with pytest.raises(ValueError, match=r"labels \[3\], which are not in classes"):
        block_diagonalization_error(H, Y, classes=[0, 1, 2])
