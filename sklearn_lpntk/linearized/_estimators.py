"""NTKRegressor and NTKClassifier: the shells; the numerics are in the files beside."""

import copy
from numbers import Integral, Real
from types import SimpleNamespace

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    MultiOutputMixin,
    RegressorMixin,
    _fit_context,
)
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted
from torch import nn

from .._engine.evaluate import all_logits
from .._gram import one_hot
from .._runtime.cache import warn_if_never_found
from .._runtime.fitting import CallbackSupportMixin, FitProgress, unfitted_on_error, with_callbacks
from .._samples.given import given, n_samples_of
from .._samples.labels import require_classes, require_targets
from .._skorch.labels import ColumnEncoder, checked_classes, require_known
from .._skorch.nets import as_outputs, is_skorch_net, net_input, trained
from .._skorch.networks import Network, require_classifier, require_regressor
from .._skorch.scoring import ends_in_skorch, kinds_taken, prepared, scorer_of, takes_tables
from ._fit import checked_alphas, solve
from ._kernels import NAMES, Features, GivenKernel, TangentKernel
from ._problem import Problem

SOLVERS = "auto", "cholesky", "eigh", "cg"


def is_network(net):
    """Whether a parameter ``net`` is a network, not a kernel."""
    return net is None or isinstance(net, nn.Module) or is_skorch_net(net) or ends_in_skorch(net)


class _LinearizedNetwork(CallbackSupportMixin, BaseEstimator):
    """What both estimators share."""

    _parameter_constraints = {
        "net": [HasMethods(["fit", "predict"]), callable, StrOptions({"precomputed"}), None],
        "kernel": [StrOptions(set(NAMES))],
        "alpha": [Interval(Real, 0, None, closed="left"), StrOptions({"gcv", "loo"})],
        "alphas": ["array-like", None],
        "offset": [StrOptions({"net", "mean", "zero", "centred"})],
        "time": [Interval(Real, 0, None, closed="neither"), None],
        "solver": [StrOptions(set(SOLVERS))],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "parameters": [str, "array-like", callable, None],
        "memory": [str, HasMethods(["cache"]), None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        net=None,
        *,
        kernel="pntk",
        alpha=1e-3,
        alphas=None,
        offset="mean",
        time=None,
        solver="auto",
        n_components=None,
        parameters=None,
        memory=None,
        random_state=None,
        verbose=0,
    ):
        self.net = net
        self.kernel = kernel
        self.alpha = alpha
        self.alphas = alphas
        self.offset = offset
        self.time = time
        self.solver = solver
        self.n_components = n_components
        self.parameters = parameters
        self.memory = memory
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, sample_weight=None):
        """Train the net, where it is to be trained, and solve the regression.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Training samples: an array of numbers, a table, a sparse matrix, a dict or tuple of
            arrays for a net with several inputs, or a map-style data set; with
            ``net="precomputed"`` their kernel matrix.
        y : array-like of shape (n_samples,), or of (n_samples, n_outputs) for regression
            Targets; None takes those of a data set's items.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the squared errors, as if a sample were there so often. The training of a
            net does not know them.

        Returns
        -------
        self : object

        Raises
        ------
        TypeError
            If ``net`` is neither a network nor a kernel.
        ValueError
            If X, y, sample_weight or the parameters do not fit to each other or to the net, if X
            or y has NaN in it, or if the kernel matrix is no positive semidefinite one.

        Warns
        -----
        UserWarning
            If ``alpha`` is too small for the kernel, so that a larger one was taken.
        ConvergenceWarning
            If conjugate gradients end before they converge.
        """
        if is_network(self.net):
            warn_if_never_found(self)
        with unfitted_on_error(self):
            self._used = SimpleNamespace(**self.get_params(deep=False))
            alphas = checked_alphas(self.alpha, self.alphas, self.time)
            progress = FitProgress(self, 3, X, y, verbose=self.verbose)
            X, y = given(self, X, y, numbers=is_regressor_shell(self), **self._kinds)
            entropy = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
            seeds = np.random.SeedSequence(int(entropy)).generate_state(3).tolist()
            weights = _checked_weights(sample_weight, n_samples_of(X))
            targets = self._targets(y)
            if is_network(self.net):
                kernel, targets, given_already = self._of_network(X, y, targets, seeds, progress)
            else:
                kernel, given_already = self._of_kernel(X), 0.0
            problem = Problem(targets - given_already, kernel.n_rows, self.offset, weights)
            with progress.stage("solve"):
                solution, loo = solve(
                    kernel,
                    problem,
                    self.alpha,
                    alphas,
                    time=self.time,
                    solver=self.solver,
                    n_components=self.n_components,
                    seed=seeds[2],
                )
                self._predictor = kernel.predictor(solution)
            self._store(solution, loo, problem, given_already)
            progress.end()
        return self

    @property
    def _kinds(self):
        net = self._used.net
        return kinds_taken(net) if is_network(net) else {"any_dtype": callable(net)}

    def _of_kernel(self, X):
        """A kernel that needs no network."""
        if self.offset == "net":
            raise ValueError(
                'offset="net" adds the outputs of a network, and net is a kernel: use "mean", '
                '"centred" or "zero".'
            )
        if not (callable(self.net) or self.net == "precomputed"):
            raise TypeError(
                'net must be a skorch net, an nn.Module, a callable kernel(X, Y), "precomputed" or '
                f"None; got {type(self.net).__name__}."
            )
        return GivenKernel(self.net if callable(self.net) else None, X, self.memory)

    def _of_network(self, X, y, targets, seeds, progress):
        """The kernel of the trained net, the targets of its outputs, and what it gives already."""
        n_classes = targets.shape[1] if hasattr(self, "classes_") else None
        scorer = scorer_of(self.net, X, y, n_classes, seeds[1])
        self._require_kind(scorer.net)
        as_it_is = isinstance(self.net, nn.Module)
        with progress.stage("train net"):
            target = self._net_target(scorer, y, as_it_is)
            net, _ = trained(scorer.net, scorer.inputs, target, seeds[0], self.memory)
        with progress.stage("compute features"):
            network = self._network_of(net)
            inputs = network.inputs(net_input(net, scorer.inputs))
            features = Features(
                network, self.kernel, self.parameters, self.n_components, seeds[1], self.memory
            )
            kernel = TangentKernel(features(inputs))
        self.net_, self._steps, self._seed = net, scorer.steps, seeds[1]
        self._plan = features.plan
        targets = self._as_outputs(targets, y, kernel.features.n_logits)
        self._require_outputs(targets.shape[1], kernel.features.n_logits)
        return kernel, targets, self._net_gives(network, inputs)

    def _network_of(self, net):
        """What is linearised: the default net, which is small, in double precision."""
        network = Network(net)
        if self._used.net is None:
            network.module = copy.deepcopy(network.module).double()
        return network

    def _require_outputs(self, n_outputs, n_logits):
        if (self.kernel == "entk" or self.offset == "net") and n_outputs != n_logits:
            raise ValueError(
                f'y has {n_outputs} output(s) and the net returns {n_logits}; kernel="entk" and '
                'offset="net" need as many. Use another kernel and offset, or a net with '
                f"{n_outputs}."
            )

    def _net_gives(self, network, inputs):
        """f_0, the net's outputs where these are the offset."""
        if self._used.offset != "net":
            return 0.0
        return all_logits(network.module, inputs).double().cpu().numpy()

    def _store(self, solution, loo, problem, given_already):
        self.alpha_ = solution.alpha
        self.intercept_ = solution.intercept
        if solution.dual is not None:
            self.dual_coef_ = problem.outputs_of(solution.dual)
        if solution.gcv is not None:
            self.gcv_values_ = solution.gcv
        if loo is not None:
            self.loo_predictions_ = self._of_classes(loo + given_already)
        if solution.n_iter is not None:
            self.n_iter_ = solution.n_iter

    def _outputs(self, X):
        """f of samples: (n_samples, n_outputs)."""
        check_is_fitted(self)
        X, _ = given(self, X, reset=False, **self._kinds)
        if not is_network(self._used.net):
            return self._predictor(X) + self.intercept_
        features, given_already = self._features_of(X)
        found = self._predictor(features).reshape(-1, len(self.intercept_))
        return found + self.intercept_ + given_already

    def _features_of(self, X):
        """Tangent features of checked samples, and what the network gives already."""
        network = self._network_of(self.net_)
        inputs = network.inputs(net_input(self.net_, prepared(self._steps, X)))
        features = Features(
            network,
            self._used.kernel,
            self._used.parameters,
            self._used.n_components,
            self._seed,
            self._used.memory,
            self._plan,
        )
        return features(inputs), self._net_gives(network, inputs)

    def kernel_matrix(self, X, Y=None):
        """The kernel of samples under the fitted network, or the callable.

        Parameters
        ----------
        X : array-like of shape (n_samples_X, ...)
            Samples, in any form that `fit` takes; with ``net="precomputed"`` their kernel already.
        Y : array-like of shape (n_samples_Y, ...), default=None
            None means X.

        Returns
        -------
        K : ndarray of shape (n_samples_X * R, n_samples_Y * R)
            In double precision; R is 1, or the number of the network's outputs with
            ``kernel="entk"``. Rows are sample-major.

        Raises
        ------
        ValueError
            If X or Y has another shape than in `fit`, or NaN in it.
        """
        check_is_fitted(self)
        both = [given(self, A, reset=False, **self._kinds)[0] for A in (X, Y) if A is not None]
        net = self._used.net
        if not is_network(net):
            return np.array(both[0] if isinstance(net, str) else net(*both), np.float64)
        return TangentKernel.matrix(*(self._features_of(A)[0] for A in both))

    def targets_of(self, X, y):
        """What `fit` regresses on: y or one-hot labels, less what the net gives.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples, in any form that `fit` takes.
        y : array-like of shape (n_samples,), or of (n_samples, n_outputs) for regression
            Numbers, or labels among ``classes_``.

        Returns
        -------
        targets : ndarray of shape (n_samples, n_outputs)

        Raises
        ------
        ValueError
            If y holds other labels than those seen in `fit`.
        """
        check_is_fitted(self)
        if y is None or len(y) != n_samples_of(X):
            found = "none" if y is None else f"{len(y)} of them"
            raise ValueError(
                f"y must hold a target for each of the {n_samples_of(X)} samples; got {found}."
            )
        require = require_targets if is_regressor_shell(self) else require_classes
        require(y)
        targets = self._known_targets(np.asarray(y))
        if targets.shape[1] != len(self.intercept_):
            raise ValueError(
                f"y has {targets.shape[1]} outputs, and fit had {len(self.intercept_)}."
            )
        if self._used.offset != "net":
            return targets
        X, _ = given(self, X, reset=False, **self._kinds)
        return targets - self._features_of(X)[1]

    def _of_classes(self, outputs):
        return outputs

    def __sklearn_is_fitted__(self):
        return hasattr(self, "intercept_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.pairwise = isinstance(self.net, str)
        tags.input_tags.sparse = not isinstance(self.net, str)
        tags.input_tags.allow_nan = is_network(self.net) and takes_tables(self.net)
        return tags


def is_regressor_shell(estimator):
    """Whether targets are numbers."""
    return isinstance(estimator, NTKRegressor)


def _checked_weights(sample_weight, n_samples):
    """Finite, non-negative weights with a positive sum, or None."""
    if sample_weight is None:
        return None
    weights = _check_sample_weight(
        sample_weight, np.empty((n_samples, 1)), dtype=np.float64, ensure_non_negative=True
    )
    if not weights.sum() > 0:
        raise ValueError("All sample weights are zero; at least one must be positive.")
    return weights


class NTKRegressor(MultiOutputMixin, RegressorMixin, _LinearizedNetwork):
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


class NTKClassifier(ClassifierMixin, _LinearizedNetwork):
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
