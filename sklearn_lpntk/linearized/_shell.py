"""What NTKRegressor and NTKClassifier share: a shell; the numerics are in the files beside."""

import copy
from numbers import Integral, Real
from types import SimpleNamespace

import numpy as np
from sklearn.base import BaseEstimator, _fit_context, is_regressor
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted
from torch import nn

from .._engine.evaluate import all_logits
from .._runtime.cache import warn_if_never_found
from .._runtime.fitting import CallbackSupportMixin, FitProgress, unfitted_on_error, with_callbacks
from .._samples.given import given, n_samples_of
from .._samples.labels import require_classes, require_targets
from .._skorch.nets import is_skorch_net, net_input, trained
from .._skorch.networks import Network
from .._skorch.scoring import ends_in_skorch, kinds_taken, prepared, scorer_of, takes_tables
from ._fit import checked_alphas, solve
from ._kernels import NAMES, Features, GivenKernel, TangentKernel
from ._problem import Problem

SOLVERS = "auto", "cholesky", "eigh", "cg"


def is_network(net):
    """Whether a parameter ``net`` is a network, not a kernel."""
    return net is None or isinstance(net, nn.Module) or is_skorch_net(net) or ends_in_skorch(net)


class LinearizedNetwork(CallbackSupportMixin, BaseEstimator):
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
            X, y = given(self, X, y, numbers=is_regressor(self), **self._kinds)
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
        require = require_targets if is_regressor(self) else require_classes
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
