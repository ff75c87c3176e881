"""Generalised cross-validation of kernels, and of networks before they are fine-tuned."""

from collections.abc import Mapping

import numpy as np
from sklearn.utils import Bunch, check_array, check_consistent_length
from sklearn.utils.multiclass import type_of_target

from .._gram import checked_gram
from .._samples.given import n_samples_of
from ._dense import Spectrum
from ._estimators import NTKClassifier, NTKRegressor
from ._fit import checked_alphas
from ._problem import Problem


def gcv_score(K, Y, alphas):
    """GCVDOC"""
    K = np.array(checked_gram(K))
    Y = check_array(Y, ensure_2d=False, dtype=np.float64, input_name="Y")
    check_consistent_length(K, Y)
    alphas = checked_alphas("gcv", alphas)
    scale = np.trace(K) / len(K)
    if not scale > 0:
        raise ValueError(f"The mean of the diagonal of K is {scale:.3g}; it must be positive.")
    problem = Problem(Y.reshape(len(Y), -1), offset="zero")
    spectrum = Spectrum(K, problem, scale, 0.0, None)
    used = np.maximum(alphas, spectrum.least)
    left = [spectrum.filter(alpha).residual(spectrum.w).sum() for alpha in used]
    return Bunch(
        alphas=alphas,
        gcv=np.array([spectrum.gcv(alpha) for alpha in used]),
        degrees_of_freedom=len(K) - np.array(left),
    )


def rank_networks(networks, X, y, *, kernel="pntk", alphas=None):
    """RANKDOC"""
    if not isinstance(networks, Mapping) or not networks:
        raise TypeError(
            "networks must be a dict of at least one name and network; got "
            f"{type(networks).__name__}."
        )
    n = n_samples_of(X)
    values = np.asarray(y)
    kind = type_of_target(values)
    regression = kind.startswith("continuous") or kind == "multilabel-indicator"
    estimator = NTKRegressor if regression or values.ndim > 1 else NTKClassifier
    gcv, alpha = {}, {}
    for name, net in networks.items():
        model = estimator(
            _as_it_is(net), kernel=kernel, alpha="gcv", alphas=alphas, random_state=0
        ).fit(X, y)
        gcv[name], alpha[name] = float(model.gcv_values_.min()), model.alpha_
    del n
    return Bunch(order=sorted(gcv, key=gcv.get), gcv=gcv, alpha=alpha)
