"""Kernel regression with the whole kernel in memory, by its eigenvalues or by a Cholesky factor."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from .._gram import JITTERS, Factor, not_positive, warn_of_jitter
from ._risk import Filter, gcv, mean_square

SMALLEST = 1e-11  # of the largest eigenvalue, that a solution may divide by


@dataclass
class Solution:
    """A fitted regression ``f(x) = f_0(x) + kappa(x, X) dual + intercept``.

    Attributes
    ----------
    dual : ndarray of shape (N R, C)
    intercept : ndarray of shape (n_outputs,)
    alpha : float
        In units of the mean of the kernel's diagonal.
    gcv : ndarray of shape (n_alphas,) or None
    loo : ndarray of shape (N, n_outputs) or None
    n_iter : int or None
        Of conjugate gradients.
    weights : ndarray of shape (n_components, C) or None
        Coefficients of a sketch's components, in place of `dual`.
    """

    dual: np.ndarray
    intercept: np.ndarray
    alpha: float
    gcv: np.ndarray | None = None
    loo: np.ndarray | None = None
    n_iter: int | None = None
    weights: np.ndarray | None = None


def chosen(criterion, alphas, errors):
    """The alpha of the least error."""
    if not np.isfinite(errors).any():
        raise ValueError(f"alpha={criterion!r}: no alpha of {list(alphas)} has a finite error.")
    return int(np.nanargmin(errors))


def prepared(K, problem):
    """Scale and centre a kernel matrix, in place.

    Returns
    -------
    means : ndarray of shape (R, N R)
        As of `Problem.centre`.
    scale : float
        The weighted mean of its diagonal.
    height : float
        The eigenvalue that the constants get where they are no direction of the regression.
    """
    means = problem.centre(K)
    scale = np.trace(K) / (problem.total * problem.n_rows)
    if not scale > 0:
        raise ValueError(
            f"The mean of the kernel's diagonal is {scale:.3g}; it must be positive: no parameter "
            "changes an output of any sample (or all samples are alike, with offset='centred')."
        )
    height = 0.0
    if problem.centred:  # the constants are eigenvectors of 0: now of a large number
        height = 2 * np.trace(K) / problem.n_rows  # larger than any eigenvalue
        K += height * problem.units @ problem.units.T
    return means, scale, height


def solve_dense(K, problem, alpha, alphas, time=None, *, by_eigenvalues=False):
    """Kernel regression with a kernel matrix, which is used up.

    Parameters
    ----------
    K : ndarray of shape (N R, N R)
    problem : Problem
    alpha : float, "gcv" or "loo"
    alphas : ndarray
        What is compared.
    time : float or None
    """
    means, scale, height = prepared(K, problem)
    search = alpha if isinstance(alpha, str) else None
    if search or time is not None or by_eigenvalues:
        spectrum = Spectrum(K, problem, scale, height, time)
        solution = spectrum.solution(search, alphas if search else np.array([alpha], float))
    else:
        solution = _by_cholesky(K, problem, alpha, scale, height)
    solution.dual *= problem.root
    solution.intercept = problem.mean.copy()
    if problem.centred:
        solution.intercept -= (means @ solution.dual).reshape(-1)
    return solution


def _by_cholesky(K, problem, alpha, scale, height):
    factor = Factor(K, alpha, scale=scale, option="alpha")
    alpha, shift = factor.ridge, factor.ridge * scale
    dual = factor.solve(problem.scaled)
    constants = factor.solve(problem.ones) if problem.offset == "mean" else None
    blocks = factor.inverse_blocks(problem.n_rows)
    trace = np.einsum("irr->", blocks)
    if problem.centred:
        blocks -= _unit_blocks(problem) / (height + shift)
        trace -= problem.n_rows / (height + shift)
    squares, left = (dual**2).sum(), trace  # both without the shift, which may be 0
    if problem.weights is not None:
        missing = problem.total * problem.n_rows - len(K)  # rows that weights stand for
        squares, left = shift**2 * squares, missing + shift * trace
    error = gcv(squares, left, problem.total, problem.n_rows)
    loo = problem.left_out(dual, constants, blocks)
    return Solution(dual.copy(), None, alpha, np.array([error]), loo)


def _unit_blocks(problem):
    units = problem.units.reshape(len(problem.Y), problem.n_rows, problem.n_rows)
    return units @ units.transpose(0, 2, 1)


class Spectrum:
    """The eigenvalues of a kernel matrix, from which every ridge has its solution."""

    def __init__(self, K, problem, scale, height, time):
        self.problem, self.scale, self.height, self.time = problem, scale, height, time
        self.w, self.Q = eigh(K, overwrite_a=True, check_finite=False, driver="evd")
        if self.w[0] < -JITTERS[-1] * scale:
            raise not_positive(0.0, JITTERS[-1], "alpha")
        self.w = np.maximum(self.w, 0)
        self.targets = self.Q.T @ problem.scaled
        self.ones = self.Q.T @ problem.ones

    def filter(self, alpha):
        return Filter(alpha * self.scale, self.time, self.problem.total)

    @property
    def least(self):
        """The least alpha that can be told from none."""
        return max(0.0, SMALLEST * self.w[-1] - self.w[0]) / self.scale

    def solution(self, search, alphas):
        """The regression of the best alpha, or of the only one."""
        raised = np.maximum(alphas, self.least if self.time is None else 0)
        if search is None and raised[0] > alphas[0]:
            warn_of_jitter(alphas[0], raised[0], "alpha")
        errors = np.array([self.gcv(alpha) for alpha in raised])
        judged = errors
        if search == "loo":
            w, Y = self.problem.w, self.problem.Y
            judged = np.array([mean_square(Y - self.loo(alpha), w) for alpha in raised])
        best = chosen(search, alphas, judged)
        alpha = raised[best]
        dual = self.Q @ (self.filter(alpha).dual(self.w)[:, None] * self.targets)
        loo = self.loo(alpha) if self.time is None else None
        return Solution(dual, None, float(alpha), errors, loo)

    def gcv(self, alpha):
        if self.time is None:  # its limit, where alpha is 0
            alpha = max(alpha, SMALLEST * self.w[-1] / self.scale)
        problem, apply = self.problem, self.filter(alpha)
        left = apply.residual(self.w)
        squares = ((left[:, None] * self.targets) ** 2).sum()
        trace = problem.total * problem.n_rows - len(self.w) + left.sum()
        if problem.centred:
            trace -= problem.n_rows * apply.residual(np.array([self.height]))[0]
        return gcv(squares, trace, problem.total, problem.n_rows)

    def loo(self, alpha):
        problem, dual = self.problem, self.filter(alpha).dual(self.w)
        rows = self.Q.reshape(len(problem.Y), problem.n_rows, -1)
        blocks = (rows * dual) @ rows.transpose(0, 2, 1)
        if problem.centred:
            blocks -= _unit_blocks(problem) / (self.height + alpha * self.scale)
        residuals = self.Q @ (dual[:, None] * self.targets)
        constants = self.Q @ (dual[:, None] * self.ones) if problem.offset == "mean" else None
        return problem.left_out(residuals, constants, blocks)
