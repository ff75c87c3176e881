"""For each test sample, the training samples that help it most and hurt it most."""

import numpy as np
import torch
from sklearn.utils import Bunch, gen_batches

from .._engine.cotangents import require_columns
from .._engine.evaluate import all_logits
from .._features import operator_of
from .._gram import checked_number, one_hot
from .._samples.columns import columns_of
from .._skorch.networks import Network
from ..kernels import empirical_ntk
from ..linearized._fit import checked_alphas, solve
from ..linearized._kernels import Features, TangentKernel
from ..linearized._problem import Problem
from ._validation import blamed, require_integer, require_same_samples


def train_test_similarity(
    net,
    X_train,
    y_train,
    X_test,
    y_test=None,
    *,
    kernels=("lpntk", "loss_gradient"),
    n_partners=5,
    normalize=False,
    parameters=None,
    alpha=1e-3,
):
    """Find the training samples that most help and most hurt each test sample.

    A step on a training sample changes the test sample's loss by minus the learning rate times
    the kernel of their loss gradients (TracIn [1]_): positive helps, negative hurts. The labelled
    kernel (lpNTK) keeps the signs of the error vectors and drops their size, so that samples
    which are learned already count, too. Both are given side by side.

    Parameters
    ----------
    net : nn.Module or fitted skorch net
        The trained network; it must return logits.
    X_train, y_train : arrays of shape (n_train, ...) and (n_train,)
        The training samples and their labels, logit columns 0..K-1.
    X_test : array of shape (n_test, ...)
        The test samples.
    y_test : array of shape (n_test,), default=None
        Their labels; None takes the network's own predictions.
    kernels : str, callable, or sequence of them, default=("lpntk", "loss_gradient")
        As in :func:`~sklearn_lpntk.kernels.empirical_ntk`, with one cotangent a sample; or
        "representer": what each training sample adds to the output of the test sample's label in
        the linearised network, ``alpha_i k(x, x_i)`` of the kernel regression with the pseudo-NTK
        of this network [2]_. They add up to that output, less a constant.
    n_partners : int, default=5
        Training samples at each end.
    normalize : bool, default=False
        Compare by the cosine. Without it the same few samples of large gradient norm are at both
        ends for most test samples.
    parameters : str, sequence of str or callable, default=None
        Which parameters count, as in :func:`~sklearn_lpntk.kernels.empirical_ntk`.
    alpha : float, default=1e-3
        Ridge of "representer", in units of the mean of the kernel's diagonal.

    Returns
    -------
    result : Bunch
        For each kernel, by name (of a callable its ``__name__``), a Bunch of

        ``helpful, harmful`` : ndarray of shape (n_test, n_partners), int
            Rows of X_train of the largest entries, falling, and of the smallest, rising. Ties
            go to the lowest row.
        ``helpful_values, harmful_values`` : ndarray of shape (n_test, n_partners)
            The entries of the kernel, or cosines (0 where a sample has no gradient); of
            "representer" always the parts of the output.

    Raises
    ------
    TypeError, NotFittedError, ValueError
        As :func:`~sklearn_lpntk.kernels.empirical_ntk`, and if there are fewer than
        ``n_partners`` training samples.

    See Also
    --------
    predict_update : What a step on given samples changes, in probabilities.
    sklearn_lpntk.inspection.SamplePairsDisplay : Draws pairs of images.

    References
    ----------
    .. [1] Pruthi et al., "Estimating Training Data Influence by Tracing Gradient Descent",
       2020. arXiv:2002.08484
    .. [2] Yeh et al., "Representer Point Selection for Explaining Deep Neural Networks", 2018.
       arXiv:1811.09720, there for the last layer.

    Examples
    --------
    >>> import torch
    >>> from sklearn_lpntk.dynamics import train_test_similarity
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> X, y = torch.randn(100, 4), torch.arange(100) % 3
    >>> result = train_test_similarity(net, X[:90], y[:90], X[90:], y[90:])
    >>> result.lpntk.helpful.shape
    (10, 5)
    """
    network = Network(net)
    train, test = network.inputs(X_train, "X_train"), network.inputs(X_test, "X_test")
    require_same_samples(X_train=train, X_test=test)
    y_train = columns_of(train, y_train, ("X_train", "y_train"))
    require_integer("n_partners", n_partners)
    if n_partners > len(y_train):
        raise ValueError(f"n_partners={n_partners}, but there are {len(y_train)} training samples.")
    if y_test is None:
        with blamed("X_test"):
            logits = all_logits(network.module, test)
        one = logits.shape[1] == 1
        y_test = (logits[:, 0] > 0 if one else logits.argmax(1)).long().cpu().numpy()
    y_test = columns_of(test, y_test, ("X_test", "y_test"))
    result = Bunch()
    for kernel in [kernels] if isinstance(kernels, str) or callable(kernels) else kernels:
        name = kernel if isinstance(kernel, str) else getattr(kernel, "__name__", str(kernel))
        if name in result:
            raise ValueError(f"Two kernels are called {name!r}; give them different __name__s.")
        if name == "representer":
            blocks = _representers(network, train, y_train, test, y_test, alpha, parameters)
        else:
            operator = empirical_ntk(
                net, X_test, y_test, X_train, y_train, kernel=kernel, parameters=parameters
            )
            if operator.shape != (len(y_test), len(y_train)):
                raise ValueError(
                    f"kernel={name!r} gives several cotangents a sample; similarity needs one."
                )
            blocks = _blocks(operator, normalize)
        result[name] = _extremes(blocks, n_partners)
    return result


def _representers(network, train, y_train, test, y_test, alpha, parameters):
    """Blocks of rows of what training samples add to outputs of the linearised network."""
    checked_number(alpha, "alpha", at_least=0)
    of = Features(network, "pntk", parameters)
    features = [of(inputs) for inputs in (train, test)]
    n_logits = features[0].n_logits
    require_columns(torch.from_numpy(np.concatenate([y_train, y_test])), n_logits)
    outputs = 2.0 * y_train[:, None] - 1 if n_logits == 1 else one_hot(y_train, n_logits)
    kernel, problem = TangentKernel(features[0]), Problem(outputs)
    options = {"time": None, "solver": "auto", "n_components": None, "seed": 0}
    dual = solve(kernel, problem, alpha, checked_alphas(alpha, None), **options)[0].dual
    wanted = (2.0 * y_test - 1) * dual if n_logits == 1 else dual[:, y_test]
    for rows in gen_batches(len(y_test), 256):
        yield TangentKernel.matrix(features[1].take(rows), features[0]) * wanted[:, rows].T


def _inverse_norms(features):
    norms = np.sqrt(np.maximum(operator_of(features).diag().astype(np.float64), 0))
    return np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)


def _blocks(operator, normalize):
    """Blocks of rows of the kernel, or of cosines."""
    scales, kernel = None, operator.kernel
    if normalize:
        scales = [_inverse_norms(features) for features in (kernel.left, kernel.right)]
    for rows in gen_batches(operator.shape[0], 256):
        block = operator.block(rows, slice(None))
        yield block if scales is None else block * scales[0][rows, None] * scales[1]


def _extremes(blocks, n_partners):
    parts = []
    for block in blocks:
        parts.append((*_largest(block, n_partners), *_largest(-block, n_partners)))
    helpful, helpful_values, harmful, negated = map(np.concatenate, zip(*parts))
    return Bunch(
        helpful=helpful, helpful_values=helpful_values, harmful=harmful, harmful_values=-negated
    )


def _largest(block, n):
    """Columns of the n largest entries of each row, falling, and the entries."""
    columns = np.argsort(-block, axis=1, kind="stable")[:, :n]
    return columns, np.take_along_axis(block, columns, axis=1)
