"""The solvers against least squares in the space of the features, by deletion and by definition."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sklearn_lpntk.linearized import _fit, _iterative
from sklearn_lpntk.linearized._dense import solve_dense
from sklearn_lpntk.linearized._fit import solve
from sklearn_lpntk.linearized._iterative import solve_iterative
from sklearn_lpntk.linearized._primal import solve_primal
from sklearn_lpntk.linearized._problem import Problem
from sklearn_lpntk.linearized._risk import ALPHAS

from . import reference

OFFSETS = "mean", "zero", "centred", "net"
SIZES = [(1, 3), (3, 3)]  # rows of a sample, outputs
N, D = 23, 31


class Exact:
    """A kernel of given features, as the iterative solver takes one."""

    def __init__(self, phi):
        self.K, self.R, self.n_rows = reference.kernel_of(phi), phi.shape[1], phi.shape[1]

    def gram(self):
        return self.K.copy()

    def diagonal(self):
        return self.K.diagonal()

    def matmul(self, V):
        return self.K @ V

    def columns(self, samples):
        rows = (samples[:, None] * self.R + np.arange(self.R)).ravel()
        return self.K[:, rows]


@pytest.fixture(params=SIZES, ids=["shared", "entk"])
def size(request):
    return request.param


def drawn(size, weighted, seed=0, d=D):
    rng = np.random.default_rng(seed)
    R, C = size
    phi = reference.features(rng, N, R, d)
    Y = rng.normal(size=(N, C)) + np.arange(C)
    w = rng.uniform(0.5, 3, size=N) if weighted else None
    return phi, Y, w


def case(size, offset, weighted, d=D):
    phi, Y, w = drawn(size, weighted, d=d)
    scale = reference.mean_diagonal(phi, np.ones(N) if w is None else w, offset)
    return phi, Y, w, scale, Problem(Y, size[0], offset, w)


def predicted(solution, phi, other):
    """Outputs of other samples by a solution."""
    if solution.weights is not None:
        rows = other.reshape(-1, other.shape[2]) @ solution.weights
    else:
        rows = reference.kernel_of(other, phi) @ solution.dual
    return rows.reshape(len(other), -1) + solution.intercept


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("solver", ["cholesky", "eigh", "primal", "cg"])
def test_regression_and_leave_one_out(size, offset, weighted, solver, monkeypatch):
    monkeypatch.setattr(_iterative, "TOLERANCE", 1e-12)
    alpha = 0.05
    phi, Y, w, scale, problem = case(size, offset, weighted)
    if solver == "cg":
        solution = solve_iterative(Exact(phi), problem, alpha, 0)
    elif solver == "primal":
        solution = solve_primal(phi.reshape(-1, D), problem, alpha, ALPHAS)
    else:
        K = reference.kernel_of(phi)
        solution = solve_dense(K, problem, alpha, ALPHAS, by_eigenvalues=solver == "eigh")
    other = reference.features(np.random.default_rng(1), 5, size[0], D)
    expected = reference.fitted(phi, Y, alpha * scale, offset, w)(other)
    rtol = 1e-8 if solver == "cg" else 1e-10
    assert_allclose(predicted(solution, phi, other), expected, rtol=rtol)
    if solver != "cg":
        left = reference.left_out(phi, Y, alpha * scale, offset, w)
        assert_allclose(solution.loo, left, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("time", [None, 0.7])
@pytest.mark.parametrize("primal", [False, True])
def test_gcv_by_its_definition(size, offset, weighted, time, primal):
    alpha = 0.05
    phi, Y, w, scale, problem = case(size, offset, weighted)
    if primal:
        solution = solve_primal(phi.reshape(-1, D), problem, alpha, ALPHAS, time)
    else:
        solution = solve_dense(reference.kernel_of(phi), problem, alpha, ALPHAS, time)
    ones = np.ones(N) if w is None else w
    Y0 = Y - problem.mean if offset == "mean" else Y  # the mean counts as given
    zero = "zero" if offset == "mean" else offset
    S = reference.smoother(phi, Y.shape[1], alpha * scale, zero, w, time)
    f = reference.fitted(phi, Y0, alpha * scale, zero, w, time)(phi)
    rows = ones.sum() * size[0]
    trace = 1 - np.trace(S) / rows
    expected = (ones[:, None] * (Y0 - f) ** 2).sum() / ones.sum() / trace**2
    assert_allclose(solution.gcv, [expected], rtol=1e-10 if time is None else 1e-8)


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("time", [0.05, 3.0])
@pytest.mark.parametrize("primal", [False, True])
def test_finite_time_is_gradient_flow(size, offset, weighted, time, primal):
    alpha = 0.02
    phi, Y, w, scale, problem = case(size, offset, weighted)
    if primal:
        solution = solve_primal(phi.reshape(-1, D), problem, alpha, ALPHAS, time)
    else:
        solution = solve_dense(reference.kernel_of(phi), problem, alpha, ALPHAS, time)
    expected = reference.fitted(phi, Y, alpha * scale, offset, w, time)(phi)
    assert_allclose(predicted(solution, phi, phi), expected, rtol=1e-8, atol=1e-8)
    assert solution.loo is None


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize(("search", "time"), [("gcv", None), ("gcv", 0.7), ("loo", None)])
def test_the_best_of_several(size, offset, time, search):
    alphas = np.array([1e-4, 1e-2, 1.0])
    phi, _, w, _, problem = case(size, offset, True)
    K = reference.kernel_of(phi)
    chosen = solve_dense(K.copy(), problem, search, alphas, time)
    one_by_one = [solve_dense(K.copy(), problem, a, alphas, time) for a in alphas]
    assert_allclose(chosen.gcv, [s.gcv[0] for s in one_by_one], rtol=1e-8)
    errors = chosen.gcv
    if search == "loo":
        errors = [(w[:, None] * (problem.Y - s.loo) ** 2).sum() for s in one_by_one]
    assert chosen.alpha == alphas[np.argmin(errors)]
    primal = solve_primal(phi.reshape(-1, D), problem, search, alphas, time)
    assert primal.alpha == chosen.alpha
    assert_allclose(primal.gcv, chosen.gcv, rtol=1e-7)


def test_the_slow_directions_of_finite_time_stay():
    """A kernel of rank one: what it can't explain is left, however long training takes."""
    rng = np.random.default_rng(0)
    phi, Y = rng.normal(size=(N, 1, 1)), rng.normal(size=(N, 2))
    solution = solve_dense(reference.kernel_of(phi), Problem(Y, offset="zero"), 0.0, ALPHAS, 1e6)
    slope = np.linalg.lstsq(phi[:, 0], Y, rcond=None)[0]
    assert_allclose(predicted(solution, phi, phi), phi[:, 0] @ slope, atol=1e-8)


@pytest.mark.parametrize("solver", ["cholesky", "eigh", "primal"])
@pytest.mark.parametrize("offset", OFFSETS)
def test_weights_are_repetitions_and_zero_is_absence(size, offset, solver):
    phi, Y, _, _, _ = case(size, offset, False)
    w = np.random.default_rng(2).integers(0, 4, N).astype(float)
    repeated = np.repeat(np.arange(N), w.astype(int))

    class Sketch(Exact):
        def __init__(self, phi):
            super().__init__(phi)
            self._phi = phi.reshape(-1, D)

        def phi(self):
            return self._phi

    def run(phi, Y, w):
        kernel, problem = Sketch(phi), Problem(Y, size[0], offset, w)
        name = solver
        options = {"time": None, "solver": name, "n_components": None, "seed": 0}
        if solver == "primal":
            return _fit._solved_by("primal", kernel, problem, 0.1, ALPHAS, None, 0)
        return solve(kernel, problem, 0.1, ALPHAS, **options)

    weighted, loo = run(phi, Y, w)
    plain, _ = run(phi[repeated], Y[repeated], None)
    assert_allclose(
        predicted(weighted, phi, phi), predicted(plain, phi[repeated], phi), rtol=1e-9, atol=1e-10
    )
    assert_allclose(weighted.gcv, plain.gcv, rtol=1e-9)
    absent = w == 0
    assert_allclose(loo[absent], predicted(weighted, phi, phi)[absent], rtol=1e-9, atol=1e-10)


def test_conjugate_gradients_without_convergence_say_so(monkeypatch):
    phi, _, _, _, problem = case((1, 3), "mean", False)
    monkeypatch.setattr(_iterative, "MOST", 1)
    with pytest.warns(match="relative residual of"):
        solve_iterative(Exact(phi), problem, 1e-6, 0)
