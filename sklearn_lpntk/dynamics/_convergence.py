"""How close the labelled kernel comes to the full one as the network grows wider."""

import numpy as np
import torch
from scipy.stats import linregress
from sklearn.utils import Bunch, check_random_state

from .._engine.cotangents import require_columns
from .._runtime.turns import seeded
from .._samples.columns import columns_of
from .._samples.inputs import as_inputs
from ..kernels import entk_kernel
from ._validation import require_integer


def entk_convergence(make_module, X, y, widths, *, n_repeats=5, random_state=None):
    """Distance of the lpNTK from the eNTK against the width of the last layer, Theorem 1 of [1]_.

    For a pair of samples, ``|| kappa I_K - K ||_F / sqrt(width)``, with the labelled kernel
    ``kappa`` and the empirical tangent kernel K, a K x K matrix; its mean over pairs of equal and
    of different labels. The theorem bounds it by the order of ``width ** -0.5``, times the largest
    entry of the tangent kernel of the last layer's inputs. That entry is bounded where one hidden
    layer grows, and grows itself where several do, under PyTorch's parametrisation. And for
    different labels ``s(y) . s(y') = K - 4``, not K, so that the last layer's own parts of the two
    kernels differ by ``4 / K`` of its inputs' inner product: that grows like ``width ** 0.5``.

    Parameters
    ----------
    make_module : callable
        From a width to a new module, drawn from torch's global generator. The theorem assumes a
        last linear layer without bias, weights of variance 1 / width.
    X : array or tensor of shape (n_samples, ...)
        A few samples: the full kernel has n_samples**2 * K**2 numbers.
    y : array of shape (n_samples,)
        Their labels, logit columns 0..K-1: two or more labels, one of them twice.
    widths : sequence of int
        Two or more.
    n_repeats : int, default=5
        Modules drawn for each width.
    random_state : int, RandomState instance or None, default=None
        Seeds the modules.

    Returns
    -------
    result : Bunch
        ``widths`` : ndarray of shape (n_widths,)
            The widths.
        ``same_label, different_label`` : ndarray of shape (n_widths, n_repeats)
            Mean distance over pairs of two samples.
        ``exponent_same_label, exponent_different_label`` : float
            Slope of the logarithm of the distance against that of the width.
        ``stderr_same_label, stderr_different_label`` : float
            Their standard errors.

    Raises
    ------
    ValueError
        If there are fewer than two widths, labels are no logit columns, or there is no pair of
        one of the two kinds.

    See Also
    --------
    sklearn_lpntk.kernels.entk_kernel, sklearn_lpntk.kernels.lpntk_kernel : The two kernels.

    References
    ----------
    .. [1] "lpNTK: Better Generalisation with Less Data via Sample Interaction During
       Learning", section 2.3 and appendix B. arXiv:2401.08808

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sklearn_lpntk.dynamics import entk_convergence
    >>> def make_module(width):
    ...     return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3, bias=False))
    >>> X, y = torch.randn(8, 4), torch.arange(8) % 3
    >>> result = entk_convergence(make_module, X, y, [16, 64, 256], random_state=0)
    >>> result.same_label.shape
    (3, 5)
    """
    X = as_inputs(X)
    y = columns_of(X, y)
    widths = _checked_widths(widths)
    require_integer("n_repeats", n_repeats)
    same = y[:, None] == y
    pairs = ~np.eye(len(y), dtype=bool)
    if not (same & pairs).any() or same.all():
        raise ValueError(
            "y must have a pair of samples of equal labels and one of different labels; got the "
            f"labels {np.unique(y).tolist()} for {len(y)} samples."
        )
    rng = check_random_state(random_state)
    found = np.empty((2, len(widths), n_repeats))
    for k, width in enumerate(widths):
        for repeat in range(n_repeats):
            module = _drawn(make_module, width, int(rng.randint(np.iinfo(np.int32).max)))
            distances = entk_distance(entk_kernel(module, X), y) / np.sqrt(width)
            found[:, k, repeat] = [distances[kind & pairs].mean() for kind in (same, ~same)]
    fits = [linregress(np.log(np.repeat(widths, n_repeats)), np.log(f).ravel()) for f in found]
    return Bunch(
        widths=np.array(widths),
        same_label=found[0],
        different_label=found[1],
        exponent_same_label=float(fits[0].slope),
        exponent_different_label=float(fits[1].slope),
        stderr_same_label=float(fits[0].stderr),
        stderr_different_label=float(fits[1].stderr),
    )


def _checked_widths(widths):
    widths = list(widths) if np.iterable(widths) else [widths]
    for width in widths:
        require_integer("Each of widths", width)
    if len(set(widths)) < 2:
        raise ValueError(f"widths must hold two different ints or more; got {widths}.")
    return widths


def entk_distance(K, y):
    """``|| kappa I - K ||_F`` of every pair, from the full kernel of shape (n, n, K, K)."""
    n_logits = K.shape[2]
    require_columns(torch.as_tensor(y), n_logits)
    if n_logits == 1:
        raise ValueError(
            "make_module returned a network with one logit, whose labelled kernel is the full one "
            "but for signs; two logits or more are needed."
        )
    signs = 2.0 * np.eye(n_logits)[y] - 1
    kappa = np.einsum("na,nmab,mb->nm", signs, K, signs, optimize=True) / n_logits
    return np.linalg.norm(kappa[:, :, None, None] * np.eye(n_logits) - K, axis=(2, 3))


def _drawn(make_module, width, seed):
    with seeded(seed, range(torch.cuda.device_count())):
        return make_module(width)
