"""Kernel regression in the space of a sketch: O(N m^2), with no array of N x N."""

import numpy as np
from scipy.linalg import eigh

from .._gram import Factor
from ._dense import SMALLEST, Solution, chosen
from ._risk import Filter, gcv, mean_square

ROWS = 2048  # of the sketch that are in double precision at once


class Sketched:
    """Features of m columns, a block of rows at a time: scaled and, if need be, centred.

    Parameters
    ----------
    phi : ndarray of shape (N R, m)
    problem : Problem
    """

    def __init__(self, phi, problem):
        self.phi, self.problem, R = phi, problem, problem.n_rows
        self.means = np.zeros((R, phi.shape[1]))
        if problem.centred:
            for rows, block in self._raw():
                w = problem.w[rows.start // R : rows.stop // R] / problem.total
                self.means += np.tensordot(w, block.reshape(-1, R, phi.shape[1]), 1)

    def _raw(self):
        step = max(1, ROWS // self.problem.n_rows) * self.problem.n_rows
        for start in range(0, len(self.phi), step):
            rows = slice(start, min(start + step, len(self.phi)))
            yield rows, self.phi[rows].astype(np.float64)

    def blocks(self):
        """(rows, block of shape (n R, m)) of all rows."""
        R = self.problem.n_rows
        for rows, block in self._raw():
            if self.problem.centred:
                block -= np.tile(self.means, (len(block) // R, 1))
            block *= self.problem.root[rows]
            yield rows, block

    def moments(self):
        """``phi^T phi`` and ``phi^T`` times the scaled targets and constants."""
        m, problem = self.phi.shape[1], self.problem
        A, targets = np.zeros((m, m)), np.zeros((m, problem.scaled.shape[1]))
        ones = np.zeros((m, problem.n_rows))
        for rows, block in self.blocks():
            A += block.T @ block
            targets += block.T @ problem.scaled[rows]
            ones += block.T @ problem.ones[rows]
        return A, targets, ones


def solve_primal(phi, problem, alpha, alphas, time=None):
    """Kernel regression on the features of a sketch; parameters as for `solve_dense`."""
    sketched = Sketched(phi, problem)
    A, targets, ones = sketched.moments()
    scale = np.trace(A) / (problem.total * problem.n_rows)
    if not scale > 0:
        raise ValueError(
            f"The mean of the kernel's diagonal is {scale:.3g}; it must be positive: no parameter "
            "changes an output of any sample."
        )
    search = alpha if isinstance(alpha, str) else None
    grid = alphas if search else np.array([alpha], float)
    if search or time is not None:
        w, V = eigh(A, overwrite_a=True, check_finite=False, driver="evd")
        w = np.maximum(w, 0)
        grid = np.maximum(grid, SMALLEST * w[-1] / scale) if time is None else grid
        duals = [Filter(a * scale, time, problem.total).dual(w) for a in grid]
    else:
        factor = Factor(A, alpha, scale=scale, option="alpha")
        grid, V = np.array([factor.ridge]), factor.inverse_root()
        w, duals = None, [np.ones(len(A))]
    # f = phi V diag(dual) V' phi' y, for every alpha
    errors, left_out_all = _judge(sketched, V, duals, targets, ones, grid, time)
    judged = errors
    if search == "loo":
        judged = np.array([mean_square(problem.Y - loo, problem.w) for loo in left_out_all])
    best = chosen(search, grid, judged)
    weights = V @ (duals[best][:, None] * (V.T @ targets))
    intercept = problem.mean - (sketched.means @ weights).reshape(-1)
    return Solution(None, intercept, float(grid[best]), errors, left_out_all[best], weights=weights)


def _judge(sketched, V, duals, targets, ones, grid, time):
    """Generalised cross-validation error, and leave-one-out predictions, for every dual filter."""
    problem, R, D = sketched.problem, sketched.problem.n_rows, np.array(duals)
    N, C = len(problem.Y), targets.shape[1]
    coefficients = D[:, :, None] * (V.T @ np.hstack([targets, ones]))  # (n_alphas, m, C + R)
    left = np.empty((len(D), N * R, C + R))
    blocks = np.empty((len(D), N, R, R))
    goal = np.hstack([problem.scaled, problem.ones])
    for rows, block in sketched.blocks():
        turned = block @ V
        left[:, rows] = goal[rows] - turned @ coefficients
        samples = slice(rows.start // R, rows.stop // R)
        turned = turned.reshape(-1, R, turned.shape[1])
        if R == 1:
            blocks[:, samples, 0, 0] = D @ (turned[:, 0] ** 2).T
        else:
            blocks[:, samples] = [(turned * d) @ turned.transpose(0, 2, 1) for d in D]
    traces = np.einsum("anrr->a", blocks) + (R if problem.centred else 0)
    squares = (left[:, :, :C] ** 2).sum((1, 2))
    errors = gcv(squares, problem.total * R - traces, problem.total, R)
    if time is not None:
        return errors, [None] * len(D)
    units = problem.units.reshape(N, R, R)
    kept = units @ units.transpose(0, 2, 1) if problem.centred else 0
    blocks = np.eye(R) - kept - blocks
    left_out_all = [problem.left_out(e[:, :C], e[:, C:], b) for e, b in zip(left, blocks)]
    return errors, left_out_all
