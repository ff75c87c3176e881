"""Risks of every ridge, and the spectrum of a kernel with the labels in it."""

from dataclasses import dataclass

import numpy as np

from ._dense import Spectrum, prepared
from ._risk import mean_square


@dataclass(frozen=True)
class Curves:
    """What ridges make of a problem, one value for each alpha.

    Attributes
    ----------
    alphas, gcv, train_risk : ndarray of shape (n_alphas,)
        Risks are mean squared errors, outputs summed.
    test_risk : ndarray of shape (n_alphas,) or None
    """

    alphas: np.ndarray
    gcv: np.ndarray
    train_risk: np.ndarray
    test_risk: np.ndarray | None


def spectrum_of(K, problem):
    """The spectrum of a kernel matrix, which is used up, and what centring it needs."""
    means, scale, height = prepared(K, problem)
    return Spectrum(K, problem, scale, height, None), means


def risk_curves(K, problem, alphas, K_test=None, Y_test=None):
    """GCV, training and test risk of a regression for many ridges, by one decomposition.

    Parameters
    ----------
    K : ndarray of shape (N R, N R)
        It is used up.
    problem : Problem
    alphas : ndarray
    K_test : ndarray of shape (n R, N R), optional
    Y_test : ndarray of shape (n, n_outputs), optional
        Less what the network gives already.
    """
    spectrum, means = spectrum_of(K, problem)
    used = np.maximum(alphas, spectrum.least)
    train, test = [], []
    for alpha in used:
        apply = spectrum.filter(alpha)
        left = apply.residual(spectrum.w)[:, None] * spectrum.targets
        train.append((left**2).sum() / problem.total)
        if K_test is not None:
            dual = spectrum.Q @ (apply.dual(spectrum.w)[:, None] * spectrum.targets) * problem.root
            found = problem.outputs_of(K_test @ dual) + problem.mean
            if problem.centred:
                found -= (means @ dual).reshape(-1)
            test.append(mean_square(Y_test - found, np.ones(len(Y_test))))
    return Curves(
        np.asarray(alphas),
        np.array([spectrum.gcv(alpha) for alpha in used]),
        np.array(train),
        np.array(test) if test else None,
    )


def alignment(K, problem):
    """Eigenvalues of a kernel matrix, falling, and the share of the targets in each direction.

    Returns
    -------
    eigenvalues : ndarray of shape (N R,)
    shares : ndarray of shape (N R,)
        They add up to one.
    """
    spectrum, _ = spectrum_of(K, problem)
    kept = np.arange(len(spectrum.w))
    if problem.centred:  # the constants are no direction of the regression
        inside = (spectrum.Q.T @ problem.units) ** 2
        kept = np.flatnonzero(inside.sum(1) < 0.5)
    order = kept[::-1]
    squares = (spectrum.targets[order] ** 2).sum(1)
    total = squares.sum()
    return spectrum.w[order], squares / total if total > 0 else squares
