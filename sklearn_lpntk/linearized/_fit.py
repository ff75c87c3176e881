"""Which solver takes a problem, and what it needs."""

from dataclasses import replace
from numbers import Real

import numpy as np
import torch

from .._runtime.memory import limit_of
from ._dense import solve_dense
from ._iterative import solve_iterative
from ._kernels import TangentKernel
from ._primal import solve_primal
from ._risk import ALPHAS

COPIES = 3  # of the kernel matrix, that a dense solver takes


def checked_alphas(alpha, alphas, time=None):
    """What ``alpha`` is chosen from, as an array of floats."""
    if alpha == "loo" and time is not None:
        raise ValueError(
            'alpha="loo" needs time=None: there is no closed form for leaving a sample out of '
            'training that ends early. Use alpha="gcv".'
        )
    if alphas is None:
        return ALPHAS
    values = np.asarray(alphas, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all() or values.min() < 0:
        raise ValueError(
            f"alphas must be a list of at least one finite number >= 0; got {alphas!r}."
        )
    return values


def solve(kernel, problem, alpha, alphas, *, time, solver, n_components, seed):
    """Solve a problem; samples of weight zero have no part in it.

    Returns
    -------
    solution : Solution
    loo : ndarray of shape (N, n_outputs) or None
        Leave-one-out predictions, without f_0; of a sample without weight its prediction.
    """
    solver = _solver_of(kernel, problem, alpha, time, solver, n_components)
    return _solved_by(solver, kernel, problem, alpha, alphas, time, seed)


def _solved_by(solver, kernel, problem, alpha, alphas, time, seed):
    if solver == "cg":
        return solve_iterative(kernel, problem, alpha, seed), None
    used = np.flatnonzero(problem.w > 0)
    rows = (used[:, None] * problem.n_rows + np.arange(problem.n_rows)).ravel()
    part, whole = problem, len(used) == len(problem.w)
    if not whole:
        part = replace(problem, Y=problem.Y[used], weights=problem.weights[used])
    if solver == "primal":
        phi = kernel.phi()
        solution = solve_primal(phi if whole else phi[rows], part, alpha, alphas, time)
        others = [] if whole else phi @ solution.weights
        dual = None
    else:
        K = kernel.gram()
        K_used = K if whole else K[np.ix_(rows, rows)]
        solution = solve_dense(K_used, part, alpha, alphas, time, by_eigenvalues=solver == "eigh")
        others = [] if whole else K[:, rows] @ solution.dual
        dual = solution.dual
    loo = solution.loo
    if whole:
        return solution, loo
    if dual is not None:
        solution.dual = np.zeros((len(problem.Y) * problem.n_rows, dual.shape[1]))
        solution.dual[rows] = dual
    if loo is not None:
        left = problem.outputs_of(others) + solution.intercept
        left[used] = loo
        loo = left
    return solution, loo


def _solver_of(kernel, problem, alpha, time, solver, n_components):
    """The name of what solves a problem."""
    n = len(problem.Y) * problem.n_rows
    features = isinstance(kernel, TangentKernel)
    if solver == "auto" and n_components is not None and features and n_components < n:
        return "primal"
    limit, why = limit_of(torch.device("cpu")), 'solver="cg" knows no eigenvalues of the kernel'
    if solver == "auto":
        size = COPIES * 8 * n * n
        fits = limit is None or not features or size <= limit
        solver = "eigh" if fits else "cg"
        why = f"its matrix of {n:,} rows takes {size / 2**30:.3g} GiB" + (
            "" if limit is None else f", of {limit / 2**30:.3g} that may be used"
        )
        if fits and isinstance(alpha, Real) and time is None:
            solver = "cholesky"
    if solver == "cg" and not features:
        raise ValueError('solver="cg" multiplies by features of a network; net is a kernel.')
    if solver == "cg" and (isinstance(alpha, str) or time is not None):
        raise ValueError(
            f"alpha={alpha!r} and time={time!r} need the eigenvalues of the kernel, and {why}: "
            "pass n_components= for a sketch, or a number as alpha with time=None."
        )
    return solver
