"""FarthestPointClustering against a literal transcription of Algorithm 3."""

import itertools

import numpy as np
import pytest
from sklearn.metrics.pairwise import rbf_kernel

from sklearn_lpntk import FarthestPointClustering
from sklearn_lpntk.cluster._traversal import farthest_point_order


def algorithm_3(K, n_clusters):
    """Appendix D.4, line by line, the new centroid taken off its list (the correction)."""
    n = len(K)
    c = [int(np.argmax(np.diag(K)))]
    lists = [[i for i in range(n) if i != c[0]]]
    while len(c) < n_clusters:
        d, c_new = np.inf, -1
        for j in range(len(c)):
            for other in lists[j]:
                if K[c[j], other] < d:
                    d, c_new = K[c[j], other], other
        for members in lists:
            if c_new in members:
                members.remove(c_new)
        c.append(c_new)
        lists.append([])
        for j in range(len(c) - 1):
            for i in list(lists[j]):
                if K[i, c[j]] < K[i, c_new]:
                    lists[j].remove(i)
                    lists[-1].append(i)
        for members in lists:
            members.sort()
    labels = np.empty(n, dtype=int)
    for j, members in enumerate(lists):
        labels[members] = j
        labels[c[j]] = j
    return np.array(c), labels


@pytest.mark.parametrize("seed", range(1000))
def test_equals_algorithm_3_ties_included(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 14))
    if seed % 2:
        phi = rng.integers(-2, 3, size=(n, 3)).astype(float)  # many ties
        K = phi @ phi.T
    else:
        K = rng.normal(size=(n, n))
        K += K.T
    m = int(rng.integers(1, n + 1))
    centers, labels = algorithm_3(K, m)
    found = FarthestPointClustering(m, affinity="precomputed").fit(K)
    np.testing.assert_array_equal(found.cluster_centers_indices_, centers)
    np.testing.assert_array_equal(found.labels_, labels)
    np.testing.assert_array_equal(found.cluster_sizes_, np.bincount(labels, minlength=m))


@pytest.mark.parametrize("seed", range(40))
def test_euclidean_cover_is_at_most_twice_the_optimum(seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(9, 2)) * rng.choice([1, 5], size=(9, 1))
    k = int(rng.integers(1, 5))
    distances = np.linalg.norm(X[:, None] - X, axis=2)
    best = min(
        distances[:, list(chosen)].min(axis=1).max()
        for chosen in itertools.combinations(range(9), k)
    )
    found = FarthestPointClustering(k).fit(X)
    centers = found.cluster_centers_indices_
    radius = distances[np.arange(9), centers[found.labels_]].max()
    assert radius <= 2 * best + 1e-12
    np.testing.assert_allclose(distances[:, centers].min(axis=1).max(), radius)


@pytest.mark.parametrize("affinity", ["euclidean", "linear", "cosine", rbf_kernel])
def test_affinities_agree_with_their_matrix(affinity):
    X = np.random.default_rng(0).normal(size=(60, 4))
    found = FarthestPointClustering(9, affinity=affinity).fit(X)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, 1)
    K = {
        "euclidean": -(((X[:, None] - X) ** 2).sum(axis=2)),
        "linear": X @ X.T,
        "cosine": cosine,
    }.get(affinity)
    K = rbf_kernel(X) if K is None else (K + K.T) / 2
    given = FarthestPointClustering(9, affinity="precomputed").fit(K)
    np.testing.assert_array_equal(found.labels_, given.labels_)
    np.testing.assert_array_equal(found.cluster_centers_, X[given.cluster_centers_indices_])
    new = np.random.default_rng(1).normal(size=(20, 4))
    if affinity == "euclidean":
        nearest = ((new[:, None] - found.cluster_centers_) ** 2).sum(axis=2).argmin(axis=1)
        np.testing.assert_array_equal(found.predict(new), nearest)
        np.testing.assert_array_equal(found.predict(X), found.labels_)
    np.testing.assert_array_equal(given.predict(K), K[:, given.cluster_centers_indices_].argmax(1))


def test_cosine_of_a_zero_row_is_zero():
    X = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 0.1]])
    found = FarthestPointClustering(2, affinity="cosine").fit(X)
    assert found.cluster_centers_indices_.tolist() == [0, 1]


@pytest.mark.parametrize(("n_clusters", "expected"), [(0.25, 5), (0.01, 1), (1.0, 20), (3, 3)])
def test_number_of_clusters(n_clusters, expected):
    X = np.random.default_rng(0).normal(size=(20, 2))
    assert len(FarthestPointClustering(n_clusters).fit(X).cluster_sizes_) == expected


def test_order_visits_the_farthest_first():
    X = np.array([0.0, 10.0, 4.0, 4.0, 9.0])
    order = farthest_point_order([0], lambda i, similarity: -np.abs(X - X[i]), 5)
    assert order.tolist() == [0, 1, 2, 4, 3]


def test_bad_input_is_refused():
    X = np.random.default_rng(0).normal(size=(6, 4))
    with pytest.raises(ValueError, match="n_clusters=7 is more than n_samples=6"):
        FarthestPointClustering(7).fit(X)
    with pytest.raises(ValueError, match=r"must be a square matrix.*\(6, 4\)"):
        FarthestPointClustering(2, affinity="precomputed").fit(X)
    K = X @ X.T
    K[0, 1] += 1
    with pytest.raises(ValueError, match="must be symmetric"):
        FarthestPointClustering(2, affinity="precomputed").fit(K)
    with pytest.raises(ValueError, match=r"must return an array of shape \(6, 6\)"):
        FarthestPointClustering(2, affinity=lambda X, Y: X).fit(X)
    with pytest.raises(ValueError, match="n_clusters"):
        FarthestPointClustering(1.5).fit(X)


def test_a_failing_fit_leaves_it_unfitted():
    def failing(X, Y):
        raise KeyboardInterrupt

    X = np.random.default_rng(0).normal(size=(10, 2))
    clustering = FarthestPointClustering(2).fit(X)
    with pytest.raises(KeyboardInterrupt):
        clustering.set_params(affinity=failing).fit(X)
    assert not [name for name in vars(clustering) if name.endswith("_")]
