"""What a regression of labels predicts for each sample from all others."""

from .._gram import one_hot
from ._dense import solve_dense
from ._primal import solve_primal
from ._problem import Problem
from ._risk import ALPHAS


def left_out_predictions(columns, *, phi=None, K=None):
    """Centred ridge regression of one-hot labels, each sample by all others, in closed form.

    The ridge is the one with the least squared leave-one-out error.

    Parameters
    ----------
    columns : ndarray of shape (n_samples,)
        Labels as 0 to n_classes - 1.
    phi : ndarray of shape (n_samples, m), or None
        Features.
    K : ndarray of shape (n_samples, n_samples), or None
        Their kernel in place of them; it is overwritten.

    Returns
    -------
    predictions : ndarray of shape (n_samples, n_classes)
    """
    problem = Problem(one_hot(columns, int(columns.max()) + 1), offset="centred")
    if K is None:
        return solve_primal(phi, problem, "loo", ALPHAS).loo
    return solve_dense(K, problem, "loo", ALPHAS, by_eigenvalues=True).loo
