"""NTKRegressor and NTKClassifier: what is theirs alone."""

import numpy as np
from sklearn.base import ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.frozen import FrozenEstimator

from .._gram import one_hot
from .._skorch.labels import ColumnEncoder, checked_classes, require_known
from .._skorch.nets import as_outputs
from .._skorch.networks import require_classifier, require_regressor
from ._shell import LinearizedNetwork


class NTKRegressor(MultiOutputMixin, RegressorMixin, LinearizedNetwork):
    """Regression with the tangent kernel of a network: training, linearised.

    Parameters
    ----------
    net : skorch net, Pipeline that ends in one, nn.Module, callable or "precomputed", default=None
        The network, or the kernel itself. A skorch regressor is cloned and trained on the samples
        given to `fit`; ``FrozenEstimator(net)`` and a plain module are taken as they are. The steps
        of a Pipeline prepare X. A callable ``kernel(X, Y=None)``, such as
        :class:`~sklearn_lpntk.infinite.InfiniteWidthNTK`, returns the kernel of all pairs;
        "precomputed": X is the kernel matrix. None means a small default net built from the data,
        also of tables with categories and missing values, and of sparse X.
    kernel : {"pntk", "pntk_first", "entk", "entk_trace"}, default="pntk"
        Of a network. "pntk" compares the sums of the outputs, "pntk_first" the first output,
        "entk_trace" equal outputs in the mean: these serve all outputs alike, with one matrix of
        n_samples rows. "entk" compares all pairs of outputs, with n_samples * n_outputs rows.
    alpha : float >= 0, "gcv" or "loo", default=1e-3
        Ridge, in units of the mean of the diagonal of the kernel (of the centred one with
        ``offset="centred"``). "gcv" takes the one of ``alphas`` with the least generalised
        cross-validation error, "loo" that with the least squared leave-one-out error.
    alphas : array-like, default=None
        What is compared; None means 41 values from 1e-7 to 1e3.
    offset : {"net", "mean", "zero", "centred"}, default="mean"
        What the regression is added to: the network's outputs, the mean of y, nothing, or an
        intercept that is fitted along, without shrinkage.
    time : float > 0, default=None
        Learning rate times steps of gradient descent on ``1/(2N) sum |f - y|^2`` and the ridge:
        the regression is what a linearised network reaches by then. None means the limit. An
        intercept is not learnt, but fitted at once.
    solver : {"auto", "cholesky", "eigh", "cg"}, default="auto"
        Cholesky factor or eigendecomposition (for ``alpha="gcv"``, "loo", or ``time``) of the
        kernel matrix, or conjugate gradients by products with the features, which make no matrix.
        "auto" takes these where three matrices exceed half of the free memory, and with
        ``n_components`` the regression on the sketch's components.
    n_components : int, default=None
        Replace tangent features by a random sketch of this size: ridge regression in its space, in
        O(n_samples n_components^2), for samples of any number.
    parameters : str, sequence of str or callable, default=None
        Which trainable parameters count, as in :func:`~sklearn_lpntk.kernels.empirical_ntk`.
    memory : str or joblib.Memory, default=None
        Caches the trained net and the features of X, so that a grid computes them once a fold.
        Needs an int ``random_state``. The folder holds pickles: open only those that you trust.
    random_state : int, RandomState instance or None, default=None
        Initial weights, batches, the sketch, and the columns that precondition conjugate gradients.
    verbose : int, default=0
        Print a line for each stage of a fit, and how far it has come.

    Attributes
    ----------
    dual_coef_ : ndarray of shape (n_samples, n_outputs)
        f is ``f_0(x) + kernel(x, X) @ dual_coef_ + intercept_``. Not with ``n_components``.
    intercept_ : ndarray of shape (n_outputs,)
    alpha_ : float
        The ridge that was taken.
    gcv_values_ : ndarray of shape (n_alphas,)
        Generalised cross-validation error of each of ``alphas``, or of the only one. Not by
        conjugate gradients.
    loo_predictions_ : ndarray of shape (n_samples, n_outputs)
        What the regression on all other samples predicts. The network, its f_0 and the
        ridge stay those of all samples. Not by conjugate gradients nor with ``time``.
    net_ : skorch net
        The network.
    n_iter_ : int
        Of conjugate gradients.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features seen in `fit`, where X has string names.

    See Also
    --------
    NTKClassifier : For classes.
    gcv_score : Generalised cross-validation of any kernel matrix.
    rank_networks : Which network's kernel suits the task.

    Notes
    -----
    ``f(x) = f_0(x) + k(x, X) (k(X, X) + lambda I)^-1 (Y - f_0(X))``, which is where gradient
    descent on the squared error takes the network's linearisation [1]_. Products of features are
    computed in double precision, whatever the network's: the smallest eigenvalues of a kernel in
    single precision are off by 1e-7 of its largest one. The default net is linearised in double
    precision, too.

    Sums of outputs are as good as all of them at initialisation [2]_, where the rows of the last
    layer are alike in distribution. After training they are not, and "pntk" is a heuristic: try
    "entk_trace", or "entk" where its matrix fits.

    References
    ----------
    .. [1] Jacot, Gabriel and Hongler, "Neural Tangent Kernel: Convergence and Generalization in
       Neural Networks", 2018. arXiv:1806.07572
    .. [2] Mohamadi, Bae and Sutherland, "A Fast, Well-Founded Approximation to the Empirical Neural
       Tangent Kernel", 2023. arXiv:2206.12543

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn_lpntk.linearized import NTKRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = NTKRegressor(alpha="loo", random_state=0).fit(X[:300], y[:300])
    >>> model.score(X[300:], y[300:]) > 0.1
    True
    """

    def _targets(self, y):
        self._is_flat = y.ndim == 1
        return y.reshape(len(y), -1)

    @staticmethod
    def _require_kind(net):
        require_regressor(net)

    def _net_target(self, scorer, y, as_it_is):
        Y = y.reshape(len(y), -1)
        if as_it_is or isinstance(scorer.net, FrozenEstimator):
            return Y
        return as_outputs(scorer.net, scorer.inputs, Y)

    def _as_outputs(self, targets, y, n_logits):
        return targets

    def _known_targets(self, y):
        return y.astype(np.float64).reshape(len(y), -1)

    def predict(self, X):
        """Predict numbers.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples, in any form that `fit` takes; with ``net="precomputed"`` their kernel with the
            training samples, of shape (n_samples, n_training_samples).

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)

        Raises
        ------
        ValueError
            If X has another shape than in `fit`, or NaN in it.
        """
        outputs = self._outputs(X)
        return outputs[:, 0] if self._is_flat else outputs


class NTKClassifier(ClassifierMixin, LinearizedNetwork):
    """Regression on one-hot labels with the tangent kernel of a network.

    Parameters
    ----------
    net : skorch net, Pipeline that ends in one, nn.Module, callable or "precomputed", default=None
        The network, or the kernel itself. A skorch classifier is cloned and trained on the samples
        given to `fit`; ``FrozenEstimator(net)`` and a plain module are taken as they are. The steps
        of a Pipeline prepare X. A callable ``kernel(X, Y=None)``, such as
        :class:`~sklearn_lpntk.infinite.InfiniteWidthNTK`, returns the kernel of all pairs;
        "precomputed": X is the kernel matrix. None means a small default net built from the data,
        also of tables with categories and missing values, and of sparse X.
    kernel : {"pntk", "pntk_first", "entk", "entk_trace"}, default="pntk"
        Of a network. "pntk" compares the sums of the outputs, "pntk_first" the first output,
        "entk_trace" equal outputs in the mean: these serve all outputs alike, with one matrix of
        n_samples rows. "entk" compares all pairs of outputs, with n_samples * n_outputs rows.
    alpha : float >= 0, "gcv" or "loo", default=1e-3
        Ridge, in units of the mean of the diagonal of the kernel (of the centred one with
        ``offset="centred"``). "gcv" takes the one of ``alphas`` with the least generalised
        cross-validation error, "loo" that with the least squared leave-one-out error.
    alphas : array-like, default=None
        What is compared; None means 41 values from 1e-7 to 1e3.
    offset : {"net", "mean", "zero", "centred"}, default="mean"
        What the regression is added to: the network's outputs, the mean of y, nothing, or an
        intercept that is fitted along, without shrinkage.
    time : float > 0, default=None
        Learning rate times steps of gradient descent on ``1/(2N) sum |f - y|^2`` and the ridge:
        the regression is what a linearised network reaches by then. None means the limit. An
        intercept is not learnt, but fitted at once.
    solver : {"auto", "cholesky", "eigh", "cg"}, default="auto"
        Cholesky factor or eigendecomposition (for ``alpha="gcv"``, "loo", or ``time``) of the
        kernel matrix, or conjugate gradients by products with the features, which make no matrix.
        "auto" takes these where three matrices exceed half of the free memory, and with
        ``n_components`` the regression on the sketch's components.
    n_components : int, default=None
        Replace tangent features by a random sketch of this size: ridge regression in its space, in
        O(n_samples n_components^2), for samples of any number.
    parameters : str, sequence of str or callable, default=None
        Which trainable parameters count, as in :func:`~sklearn_lpntk.kernels.empirical_ntk`.
    memory : str or joblib.Memory, default=None
        Caches the trained net and the features of X, so that a grid computes them once a fold.
        Needs an int ``random_state``. The folder holds pickles: open only those that you trust.
    random_state : int, RandomState instance or None, default=None
        Initial weights, batches, the sketch, and the columns that precondition conjugate gradients.
    verbose : int, default=0
        Print a line for each stage of a fit, and how far it has come.

    Attributes
    ----------
    dual_coef_ : ndarray of shape (n_samples, n_outputs)
        f is ``f_0(x) + kernel(x, X) @ dual_coef_ + intercept_``. Not with ``n_components``.
    intercept_ : ndarray of shape (n_outputs,)
    alpha_ : float
        The ridge that was taken.
    gcv_values_ : ndarray of shape (n_alphas,)
        Generalised cross-validation error of each of ``alphas``, or of the only one. Not by
        conjugate gradients.
    loo_predictions_ : ndarray of shape (n_samples, n_classes)
        What the regression on all other samples predicts, as `decision_function`, but one column a
        class. The network, its f_0 and the ridge stay those of all samples. Not by conjugate
        gradients nor with ``time``.
    net_ : skorch net
        The network.
    classes_ : ndarray of shape (n_classes,)
        The labels.
    n_iter_ : int
        Of conjugate gradients.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features seen in `fit`, where X has string names.

    See Also
    --------
    NTKRegressor : For numbers.
    gcv_score : Generalised cross-validation of any kernel matrix.
    rank_networks : Which network's kernel suits the task.

    Notes
    -----
    ``f(x) = f_0(x) + k(x, X) (k(X, X) + lambda I)^-1 (Y - f_0(X))``, which is where gradient
    descent on the squared error takes the network's linearisation [1]_. Products of features are
    computed in double precision, whatever the network's: the smallest eigenvalues of a kernel in
    single precision are off by 1e-7 of its largest one. The default net is linearised in double
    precision, too.

    Sums of outputs are as good as all of them at initialisation [2]_, where the rows of the last
    layer are alike in distribution. After training they are not, and "pntk" is a heuristic: try
    "entk_trace", or "entk" where its matrix fits.

    There are no probabilities: wrap it in :class:`~sklearn.calibration.CalibratedClassifierCV`. For
    a network of one logit the only output is a regression on -1 and 1. With ``kernel="entk"`` or
    ``offset="net"`` labels take logit columns, as in :class:`~sklearn_lpntk.LpNTKTransformer`, and
    ``dual_coef_`` has one for each logit.

    References
    ----------
    .. [1] Jacot, Gabriel and Hongler, "Neural Tangent Kernel: Convergence and Generalization in
       Neural Networks", 2018. arXiv:1806.07572
    .. [2] Mohamadi, Bae and Sutherland, "A Fast, Well-Founded Approximation to the Empirical Neural
       Tangent Kernel", 2023. arXiv:2206.12543

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_lpntk.linearized import NTKClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
    ... )
    >>> model = NTKClassifier(net, alpha="loo").fit(X[:800] / 16, y[:800])  # it was not trained
    >>> model.score(X[800:] / 16, y[800:]) > 0.9
    True
    """

    def _targets(self, y):
        self.classes_ = checked_classes(y)
        self._columns, self._n_logits = None, None
        return one_hot(np.searchsorted(self.classes_, y), len(self.classes_))

    @property
    def _needs_columns(self):
        return self._used.kernel == "entk" or self._used.offset == "net"

    @staticmethod
    def _require_kind(net):
        if not isinstance(net, FrozenEstimator):
            require_classifier(net)

    def _net_target(self, scorer, y, as_it_is):
        require_known(scorer.net, self.classes_)
        if isinstance(scorer.net, FrozenEstimator) and not self._needs_columns:
            return np.searchsorted(self.classes_, y)  # any net has a kernel for any labels
        encoder = ColumnEncoder.for_net(scorer.net, scorer.inputs, y)
        if self._needs_columns:
            self._columns = encoder.columns
        return encoder.encode(y)

    def _as_outputs(self, targets, y, n_logits):
        """One-hot rows, in the columns of the net where these count; +-1 for its only logit."""
        self._n_logits = n_logits
        if n_logits == 1 and len(self.classes_) == 2:
            self._columns = None
            return 2 * targets[:, 1:] - 1
        if self._columns is None:
            return targets
        if self._columns.max() >= n_logits:
            raise ValueError(
                f"y contains the labels {self.classes_.tolist()}, and the net has {n_logits} "
                'logits: with kernel="entk" or offset="net" each label needs one.'
            )
        wide = np.zeros((len(targets), n_logits))
        wide[:, self._columns] = targets
        return wide

    def _known_targets(self, y):
        y = y.reshape(-1)
        missing = np.setdiff1d(y, self.classes_)
        if len(missing):
            raise ValueError(f"y has the labels {missing.tolist()}, which fit has not seen.")
        targets = one_hot(np.searchsorted(self.classes_, y), len(self.classes_))
        return targets if self._n_logits is None else self._as_outputs(targets, y, self._n_logits)

    def _of_classes(self, outputs):
        return outputs if self._columns is None else outputs[:, self._columns]

    def decision_function(self, X):
        """The regression on the one-hot labels: no probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples, in any form that `fit` takes; with ``net="precomputed"`` their kernel with the
            training samples, of shape (n_samples, n_training_samples).

        Returns
        -------
        decision : ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            Of two classes the second's output less the first's.

        Raises
        ------
        ValueError
            If X has another shape than in `fit`, or NaN in it.
        """
        outputs = self._of_classes(self._outputs(X))
        if len(self.classes_) > 2:
            return outputs
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs[:, 1] - outputs[:, 0]

    def predict(self, X):
        """Predict classes: those of the largest output.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As for `decision_function`.

        Returns
        -------
        labels : ndarray of shape (n_samples,)

        Raises
        ------
        ValueError
            If X has another shape than in `fit`, or NaN in it.
        """
        decision = self.decision_function(X)
        if decision.ndim == 1:
            return self.classes_[(decision > 0).astype(int)]
        return self.classes_[decision.argmax(axis=1)]
