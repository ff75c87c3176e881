"""Kernel regression by conjugate gradients: products with the features, never N x N."""

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, cholesky, solve_triangular
from sklearn.exceptions import ConvergenceWarning

from .._gram import JITTERS, warn, warn_of_jitter
from .._runtime.progress import report
from ._dense import Solution

RANK = 2048  # columns of the kernel that the preconditioner knows
ROWS = 1024  # of them that are transformed at once
TOLERANCE = 1e-6  # of the residual, relative to the target
MOST = 1000  # iterations


def solve_iterative(kernel, problem, alpha, seed):
    """Kernel regression on a kernel that multiplies matrices.

    Parameters
    ----------
    kernel : TangentKernel
        With ``matmul, diagonal, columns``.
    problem : Problem
    alpha : float
    seed : int
        Draws the columns for the preconditioner.
    """
    scaled = Scaled(kernel, problem)
    if alpha < JITTERS[1]:
        warn_of_jitter(alpha, JITTERS[1], "alpha")
        alpha = JITTERS[1]
    shift = alpha * scaled.scale
    precondition = nystrom(scaled, shift, seed)
    dual, n_iter, error = conjugate_gradients(
        lambda V: scaled.matmul(V) + shift * V, problem.scaled, precondition
    )
    if not error <= TOLERANCE:
        warn(
            f"Conjugate gradients have a relative residual of {error:.2g} after {n_iter} "
            f"iterations with alpha={alpha:g}: the predictions are less exact. Raise alpha, or "
            "pass n_components.",
            ConvergenceWarning,
        )
    dual = dual * problem.root
    intercept = problem.mean.copy()
    if problem.centred:
        intercept -= (scaled.means @ dual).reshape(-1)
    return Solution(dual, intercept, alpha, n_iter=n_iter)


class Scaled:
    """The centred, weighted kernel of a problem as an operator.

    Attributes
    ----------
    means : ndarray of shape (R, N R)
        Kernel of the mean of the features with every sample's.
    scale : float
        Weighted mean of its diagonal.
    """

    def __init__(self, kernel, problem):
        self.kernel, self.problem = kernel, problem
        diagonal = kernel.diagonal()
        w = np.repeat(problem.w, problem.n_rows) / (problem.total * problem.n_rows)
        self.scale = w @ diagonal
        if problem.centred:
            averages = problem.root * problem.ones / problem.total  # (N R, R)
            self.means = kernel.matmul(averages).T
            self.scale -= np.trace(self.means @ averages) / problem.n_rows
        if not self.scale > 0:
            raise ValueError(f"The mean of the kernel's diagonal is {self.scale:.3g}.")

    def matmul(self, V):
        """The product with V of shape (N R, p)."""
        return self.left(self.kernel.matmul(self._right(V)))

    def left(self, B):
        """Rows of the raw kernel as those of this one, in place."""
        problem = self.problem
        if problem.centred:
            weights = problem.root * problem.ones / problem.total
            blocks = B.reshape(len(problem.Y), problem.n_rows, -1)
            blocks -= weights.T @ B
        B *= problem.root
        return B

    def _right(self, V):
        problem = self.problem
        V = problem.root * V
        if problem.centred:
            sums = np.tile(np.eye(problem.n_rows), (len(problem.Y), 1)).T @ V
            V = V - problem.root * problem.ones @ sums / problem.total
        return V


def nystrom(scaled, shift, seed):
    """A preconditioner ``(B B' + shift I)^-1`` from some columns of the kernel.

    The columns of samples that are drawn at random give the low-rank part; it makes the large
    eigenvalues of the kernel, which are few, as small as ``shift``.
    """
    problem = scaled.problem
    N, R = len(problem.Y), problem.n_rows
    rank = min(RANK // R + 1, max(1, N // 4))
    samples = np.sort(np.random.default_rng(seed).choice(N, rank, replace=False))
    B = scaled.kernel.columns(samples)
    rows = (samples[:, None] * R + np.arange(R)).ravel()
    K = B[rows].copy()
    if not np.trace(K) > 0:  # samples without gradient: nothing is known of the others
        return lambda V: V / shift
    jitter = 1e-12
    while True:
        try:
            L = cholesky(K + jitter * np.trace(K) * np.eye(len(K)), lower=True)
            break
        except LinAlgError:
            jitter *= 10
    for start in range(0, len(B), ROWS):
        block = slice(start, start + ROWS)
        B[block] = solve_triangular(L, B[block].T, lower=True).T
    B = scaled.left(B)
    inner = cho_factor(B.T @ B + shift * np.eye(B.shape[1]), lower=True)
    return lambda V: (V - B @ cho_solve(inner, B.T @ V)) / shift


def conjugate_gradients(matmul, Y, precondition):
    """Solutions X of A X = Y for all columns at once, each with steps of its own.

    Returns
    -------
    X : ndarray
    n_iter : int
    error : float
        The largest norm of a column's residual, relative to its target.
    """
    goal = np.maximum(np.linalg.norm(Y, axis=0), np.finfo(float).tiny)
    X, residual = np.zeros_like(Y), Y.copy()
    Z = precondition(residual)
    P, rho = Z.copy(), np.einsum("np,np->p", residual, Z)
    for n_iter in range(1, MOST + 1):
        AP = matmul(P)
        curvature = np.einsum("np,np->p", P, AP)
        step = np.divide(rho, curvature, out=np.zeros_like(rho), where=curvature > 0)
        X += step * P
        residual -= step * AP
        error = (np.linalg.norm(residual, axis=0) / goal).max()
        report(n_iter, None, "iterations")
        if error <= TOLERANCE:
            break
        Z = precondition(residual)
        last, rho = rho, np.einsum("np,np->p", residual, Z)
        P = Z + np.divide(rho, last, out=np.zeros_like(rho), where=last > 0) * P
    return X, n_iter, float(error)
