"""Kernel regression by its definition: penalised least squares in the space of the features."""

import numpy as np


def features(rng, n, R, d):
    """Random features (n, R, d) with a common part, as tangent features have."""
    return rng.normal(size=(n, R, d)) + 0.5 * rng.normal(size=(R, d))


def kernel_of(phi, other=None):
    """The matrix (n R, m R) of features (n, R, d)."""
    left = phi.reshape(-1, phi.shape[2])
    right = left if other is None else other.reshape(-1, phi.shape[2])
    return left @ right.T


def mean_diagonal(phi, w, offset):
    """What alpha is relative to."""
    if offset == "centred":
        phi = phi - np.tensordot(w / w.sum(), phi, 1)
    return (w[:, None] * (phi**2).sum(2)).sum() / (w.sum() * phi.shape[1])


def fitted(phi, Y, shift, offset, w=None, time=None, f0=0.0):
    """``predict(phi)`` of the least squares problem; a ridge ``shift`` in absolute terms."""
    n, R, d = phi.shape
    w = np.ones(n) if w is None else w
    Y = Y - f0
    base = w @ Y / w.sum() if offset in ("mean", "centred") else np.zeros(Y.shape[1])
    shared = R == 1
    A = phi.reshape(n * R, d)
    T = (Y - base).reshape(n * R, -1)
    W = np.repeat(w, R)
    if time is not None:  # an intercept is fitted at once: the mean, of centred features
        means = np.tensordot(w / w.sum(), phi, 1) if offset == "centred" else 0.0
        A = (phi - means).reshape(n * R, d)
        theta = flow(A, T, W, shift, time, w.sum())
        return lambda p: ((p - means).reshape(-1, d) @ theta).reshape(len(p), -1) + base
    if offset == "centred":  # a free intercept, one for each row of a sample
        A = np.hstack([A, np.tile(np.eye(R), (n, 1))])
    penalty = np.diag([shift] * d + [0.0] * (A.shape[1] - d))
    theta = np.linalg.solve(A.T @ (W[:, None] * A) + penalty, A.T @ (W[:, None] * T))

    def predict(p):
        rows = p.reshape(len(p) * R, d)
        if offset == "centred":
            rows = np.hstack([rows, np.tile(np.eye(R), (len(p), 1))])
        return (rows @ theta).reshape(len(p), Y.shape[1] if shared else R) + base

    return predict


def flow(A, T, W, shift, time, total, steps=600):
    """Gradient flow on the parameters of a linear model from zero, by Runge and Kutta's rule."""
    H, b = (A.T @ (W[:, None] * A) + shift * np.eye(A.shape[1])) / total, A.T @ (W[:, None] * T)
    b = b / total
    theta, h = np.zeros((A.shape[1], T.shape[1])), time / steps
    for _ in range(steps):
        k1 = b - H @ theta
        k2 = b - H @ (theta + h / 2 * k1)
        k3 = b - H @ (theta + h / 2 * k2)
        k4 = b - H @ (theta + h * k3)
        theta = theta + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return theta


def left_out(phi, Y, shift, offset, w=None):
    """Predictions for every sample by what the others alone give, with the same ridge."""
    w = np.ones(len(Y)) if w is None else w
    out = np.empty_like(Y, dtype=float)
    for i in range(len(Y)):
        rest = np.arange(len(Y)) != i
        out[i] = fitted(phi[rest], Y[rest], shift, offset, w[rest])(phi[i : i + 1])[0]
    return out


def smoother(phi, n_outputs, shift, offset, w=None, time=None):
    """The matrix S with f = S y, column by column: (N R, N R) of one output or all."""
    n, R = phi.shape[:2]
    C = 1 if R == 1 else R
    S = np.empty((n * R, n * R))
    for j in range(n * R):
        Y = np.zeros(n * R)
        Y[j] = 1
        f = fitted(phi, Y.reshape(n, C), shift, offset, w, time)(phi)
        S[:, j] = f.ravel()
    return S
