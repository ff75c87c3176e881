"""Is a sample hard by itself, or because of the others?"""

from functools import partial

import numpy as np
import torch
from scipy.stats import pearsonr
from sklearn.utils import Bunch, check_random_state

from .._engine.cotangents import require_columns
from .._engine.evaluate import all_logits
from .._engine.inputs import is_many, to_batch
from .._engine.parameters import accepted, select_parameters
from .._engine.session import borrowed
from .._samples.columns import columns_of
from .._skorch.networks import Network
from ._stacked import summed_losses
from ._validation import blamed, require_integer, require_learning_rate


def difficulty_correlation(
    net,
    X,
    y,
    *,
    subset_sizes=(1, 5, 10, 40, 200, 1000),
    n_epochs=100,
    learning_rate=0.1,
    random_state=None,
):
    """Correlate the difficulty of samples learned all together and in subsets.

    Algorithm 1 of [1]_, with the sign of its update corrected (as printed it climbs the loss). The
    difficulty of a sample is the sum of its loss over the epochs of full-batch gradient descent.
    The samples are split at random into subsets of one size, a copy of the network is trained on
    each from the same initial weights, and the difficulties that come out are correlated with
    those of training on all samples at once. The smaller the subsets, the less of a sample's
    difficulty can come from the others.

    Parameters
    ----------
    net : nn.Module or skorch net
        Its present weights are the initial ones: a new module, or a net after ``initialize``. It
        is used in evaluation mode (dropout off) and comes back exactly as it was.
    X : array or tensor of shape (n_samples, ...)
        The samples.
    y : array of shape (n_samples,)
        Their labels, logit columns 0..K-1.
    subset_sizes : sequence of int, default=(1, 5, 10, 40, 200, 1000)
        Samples in a subset, at most n_samples. What is left over makes one smaller subset.
    n_epochs : int, default=100
        Steps of full-batch gradient descent.
    learning_rate : float, default=0.1
        Of all of them.
    random_state : int, RandomState instance or None, default=None
        Draws the subsets.

    Returns
    -------
    result : Bunch
        ``correlation`` : ndarray of shape (n_sizes,)
            Pearson's correlation with the difficulty among all samples.
        ``difficulty`` : ndarray of shape (n_samples,)
            Among all samples, in nats times epochs.
        ``subset_difficulty`` : ndarray of shape (n_sizes, n_samples)
            In subsets of each size.
        ``subset_sizes`` : ndarray of shape (n_sizes,)
            The sizes.

    Raises
    ------
    TypeError
        If ``net`` is neither a module nor a skorch net.
    NotFittedError
        If the skorch net is not initialised.
    ValueError
        If a size is not between 1 and n_samples, the learning rate is not above 0, labels are no
        logit columns, or training diverges.

    See Also
    --------
    LearningDifficulty : Records difficulty during an ordinary fit.

    Notes
    -----
    The copies are trained as one: their parameters are stacked and the network is run under
    ``torch.func.vmap``. For networks of a thousand parameters that is tens of times faster than
    a loop; from a hundred thousand on, memory is the limit, and it is a few times faster.
    A network that vmap does not know (LSTM) is trained one copy after the other.

    References
    ----------
    .. [1] "lpNTK: Better Generalisation with Less Data via Sample Interaction During
       Learning", section 3.2 and appendix D.2. arXiv:2401.08808

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_lpntk.dynamics import difficulty_correlation
    >>> X, y = load_digits(n_class=4, return_X_y=True)
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    >>> result = difficulty_correlation(
    ...     net, X / 16, y, subset_sizes=[1, 200], n_epochs=50, random_state=0
    ... )
    >>> result.correlation[0] < result.correlation[1]
    np.True_
    """
    network = Network(net)
    module = accepted(network.module)
    names = select_parameters(module, None)
    require_learning_rate(learning_rate)
    require_integer("n_epochs", n_epochs)
    X = _one_array(network.inputs(X))
    y = columns_of(X, y)
    if len(y) < 2:
        raise ValueError("A correlation needs two samples or more; got one.")
    sizes = _checked_sizes(subset_sizes, len(y))
    with blamed("X, y"):
        columns = torch.as_tensor(y)
        require_columns(columns, all_logits(module, X).shape[1])
    first = next(module.parameters())
    data = to_batch(X, slice(None), first.dtype, first.device), columns.to(first.device)
    options = {"n_epochs": n_epochs, "learning_rate": learning_rate}
    rng = check_random_state(random_state)
    with borrowed(module):
        train = partial(_in_subsets, module, names, *data, options)
        whole = train(np.arange(len(y)), len(y))
        parts = [train(rng.permutation(len(y)), size) for size in sizes]
    return Bunch(
        correlation=np.array([pearsonr(whole, part).statistic for part in parts]),
        difficulty=whole,
        subset_difficulty=np.array(parts),
        subset_sizes=np.array(sizes),
    )


def _one_array(X):
    if is_many(X):
        raise ValueError(
            "X must be one array of samples: networks with several inputs can't be trained on many "
            "subsets at once. Wrap it in a module that takes them side by side in one array."
        )
    return X


def _in_subsets(module, names, X, y, options, order, size):
    """Difficulty of every sample where consecutive ones of an order are trained on together."""
    difficulty = np.empty(len(order))
    whole = len(order) // size * size
    for rows in (order[:whole].reshape(-1, size), order[whole:][None]):
        if rows.size:
            losses = summed_losses(module, names, X[rows], y[rows], **options)
            difficulty[rows] = losses.cpu().numpy()
    if not np.isfinite(difficulty).all():
        raise ValueError(
            f"Training on subsets of {size} samples diverged: some losses are not finite. Lower "
            f"learning_rate={options['learning_rate']}."
        )
    return difficulty


def _checked_sizes(subset_sizes, n):
    sizes = list(subset_sizes) if np.iterable(subset_sizes) else [subset_sizes]
    for size in sizes:
        require_integer("Each of subset_sizes", size)
        if size > n:
            raise ValueError(f"subset_sizes has {size}, but there are only {n} samples.")
    if not sizes:
        raise ValueError("subset_sizes is empty; name one size or more.")
    return sizes
