"""LpNTKTransformer: tangent features or the kernel of labelled samples."""

from numbers import Integral

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ._features import extract, make_extractor, operator_of
from ._runtime.cache import warn_if_never_found
from ._runtime.fitting import CallbackSupportMixin, FitProgress, unfitted_on_error, with_callbacks
from ._samples.given import given, n_samples_of
from ._skorch.labels import ColumnEncoder, checked_classes
from ._skorch.nets import net_input, trained
from ._skorch.networks import Network, require_classifier
from ._skorch.scoring import kinds_taken, prepared, scorer_of, takes_tables

MAX_EXACT = 4096  # columns of phi that n_components="auto" writes out


class LpNTKTransformer(
    CallbackSupportMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Features of labelled samples whose inner products are a network's tangent kernel.

    Parameters
    ----------
    net : skorch classifier, Pipeline that ends in one, or nn.Module, default=None
        The network; it must emit logits. It is cloned and trained on the samples given to
        `fit`; ``FrozenEstimator(net)`` and a plain module are taken as they are, and integer labels
        are then logit columns. The steps of a Pipeline prepare X. None means a small default net
        built from the data, also of tables with categories and missing values, and of sparse X.
    kernel : {"lpntk", "pntk", "pntk_first", "loss_gradient"} or callable, default="lpntk"
        As in :func:`~sklearn_lpntk.kernels.empirical_ntk`.
    output : {"features", "kernel"}, default="features"
        Features, or the kernel against the samples given to `fit`.
    n_components : "auto", int or None, default="auto"
        Number of features. ``"auto"`` is the number d of parameters where d <= 4096, else a
        sketch of 4096; an int is a sketch of this size; None writes all d out. For
        ``output="kernel"`` an int sketches, all else is exact.
    memory : str or joblib.Memory, default=None
        Caches the trained net. Needs an int ``random_state``. The folder holds pickles: open only
        those that you trust.
    random_state : int, RandomState instance or None, default=None
        Initial weights, batches and sketch.
    verbose : int, default=0
        Print a line for each stage of a fit, and how far it has come.

    Attributes
    ----------
    net_ : skorch net
        The trained network.
    classes_ : ndarray of shape (n_classes,)
        The labels.
    n_components_ : int
        Number of columns that `transform` returns.
    n_features_in_ : int
        ``X.shape[1]`` seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features seen in `fit`, where X has string names.

    See Also
    --------
    sklearn_lpntk.kernels.empirical_ntk : The kernel of a module, lazily.
    FarthestPointClustering : Clusters these features (``affinity="linear"`` or ``"cosine"``)
        or this kernel (``affinity="precomputed"``).

    Notes
    -----
    **Labels leak.** With ``"lpntk"`` and ``"loss_gradient"`` the features of a training sample
    contain its label. That is right in front of a clustering or for pruning; in front of a
    classifier it is a leak: training features tell the label, test features cannot. There use
    ``kernel="pntk"``.

    `fit_transform` uses the given labels; `transform` without labels uses the network's
    predictions. So ``fit(X, y).transform(X)`` differs from ``fit_transform(X, y)`` on
    misclassified rows, as for :class:`~sklearn.preprocessing.TargetEncoder`;
    ``transform(X, y)`` takes the labels.

    A sketch of m components has, for the inner product of two features, a standard error of at
    most ``sqrt(2 / m)`` times the product of their norms, and no bias.

    References
    ----------
    .. [1] "lpNTK: Better Generalisation with Less Data via Sample Interaction During
       Learning", Eq. 3. arXiv:2401.08808

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_lpntk import FarthestPointClustering, LpNTKTransformer
    >>> from sklearn.pipeline import make_pipeline
    >>> X, y = load_iris(return_X_y=True)
    >>> clusters = make_pipeline(
    ...     LpNTKTransformer(n_components=256, random_state=0),
    ...     FarthestPointClustering(n_clusters=5, affinity="cosine"),
    ... )
    >>> clusters.fit(X, y)[-1].cluster_sizes_.sum()
    np.int64(150)
    """

    _parameter_constraints = {
        "net": [HasMethods(["fit", "predict"]), nn.Module, None],
        "kernel": [
            StrOptions({"lpntk", "pntk", "pntk_first", "loss_gradient"}),
            callable,
        ],
        "output": [StrOptions({"features", "kernel"})],
        "n_components": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"}), None],
        "memory": [str, HasMethods(["cache"]), None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        net=None,
        *,
        kernel="lpntk",
        output="features",
        n_components="auto",
        memory=None,
        random_state=None,
        verbose=0,
    ):
        self.net = net
        self.kernel = kernel
        self.output = output
        self.n_components = n_components
        self.memory = memory
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Train the net and, for ``output="kernel"``, keep the features of the samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Training samples: an array of numbers, a table, a sparse matrix, a dict or tuple of
            arrays for a net with several inputs, or a map-style data set.
        y : array-like of shape (n_samples,)
            Class labels; None takes those of a data set's items.

        Returns
        -------
        self : LpNTKTransformer

        Raises
        ------
        TypeError
            If ``net`` is no skorch classifier.
        ValueError
            If there is one class only, if the net emits probabilities, if its training
            diverges, or if X does not fit it.
        """
        self._fit(X, y)
        return self

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=False)
    def fit_transform(self, X, y=None):
        """Fit, and transform the samples with their own labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples, in any form that `fit` takes.
        y : array-like of shape (n_samples,)
            Their labels.

        Returns
        -------
        Z : ndarray of shape (n_samples, `n_components_`)
        """
        features = self._fit(X, y)
        return self._written_out(features)

    def _fit(self, X, y):
        warn_if_never_found(self)
        with unfitted_on_error(self):
            progress = FitProgress(self, 2, X, y, verbose=self.verbose)
            X, y = given(self, X, y, **kinds_taken(self.net))
            classes = checked_classes(y)
            entropy = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
            net_seed, sketch_seed = np.random.SeedSequence(int(entropy)).generate_state(2)
            scorer = scorer_of(self.net, X, y, len(classes), int(sketch_seed))
            require_classifier(scorer.net)
            encoder = ColumnEncoder.for_net(scorer.net, scorer.inputs, y)
            with progress.stage("train net"):
                columns = encoder.encode(y)
                net, _ = trained(scorer.net, scorer.inputs, columns, int(net_seed), self.memory)
            with progress.stage("compute features"):
                network = Network(net)
                extractor = make_extractor(network, kernel=self.kernel)
                sketch = self._sketch_size(extractor), int(sketch_seed)
                inputs = network.inputs(net_input(net, scorer.inputs))
                features = extract(extractor, inputs, columns, *sketch)
            self.net_, self.classes_ = net, classes
            self._steps, self._encoder = scorer.steps, encoder
            self._sketch, self._plan = sketch, extractor.plan
            self._fit_features = features if self.output == "kernel" else None
            self._columns = features.columns
            self.n_components_ = self._n_columns(features)
            progress.end()
        return features

    def _sketch_size(self, extractor):
        """Size of the sketch, or None for exact features."""
        if self.n_components != "auto":
            return self.n_components
        if self.output == "kernel" or extractor.n_parameters <= MAX_EXACT:
            return None
        return MAX_EXACT

    def _n_columns(self, features):
        if self.output == "kernel":
            return features.n_samples * features.n_cotangents
        return sum(self._columns.values()) * features.n_cotangents

    def transform(self, X, y=None):
        """Features, or the kernel against the samples seen in `fit`.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples, in any form that `fit` takes.
        y : array-like of shape (n_samples,), default=None
            Labels among ``classes_``; None means the network's predictions.

        Returns
        -------
        Z : ndarray of shape (n_samples, `n_components_`)

        Raises
        ------
        ValueError
            If y holds other labels than those seen in `fit`, or if the samples take a path
            through the network that no training sample took.
        """
        check_is_fitted(self)
        X, _ = given(self, X, reset=False, **kinds_taken(self.net))
        X = net_input(self.net_, prepared(self._steps, X))
        if y is None:
            y = self._encoder.predict(self.net_, X)
        else:
            y = self._checked_labels(y, n_samples_of(X))
        columns = self._encoder.encode(y)
        network = Network(self.net_)
        extractor = make_extractor(network, kernel=self.kernel, plan=self._plan)
        features = extract(extractor, network.inputs(X), columns, *self._sketch)
        if not extractor.plan.fits(self._plan):
            raise ValueError(
                "These samples take a path through the network that no training sample took, on "
                "which parameters are used in another way; their features do not fit those of the "
                "training samples. Fit again with such samples among them."
            )
        return self._written_out(features)

    def _checked_labels(self, y, n_samples):
        y = np.asarray(y)
        if y.shape != (n_samples,) or not np.isin(y, self.classes_).all():
            raise ValueError(
                f"y must hold one label for each of the {n_samples} samples, among "
                f"{self.classes_.tolist()}."
            )
        return y

    def _written_out(self, features):
        if self.output == "kernel":
            same = features is self._fit_features
            return operator_of(features, None if same else self._fit_features).toarray()
        if not features.in_memory:
            size = 4 * features.n_samples * self._n_columns(features) / 2**30
            raise MemoryError(
                f"{features.n_samples} samples with {self.n_components_} features each take "
                f"{size:.3g} GiB, more than half of the free memory. Pass n_components='auto' or "
                "an int for a sketch, or transform fewer samples at a time."
            )
        phi = features.materialise(self._columns)
        return phi.reshape(features.n_samples, -1).cpu().numpy()

    @property
    def _n_features_out(self):
        return self.n_components_

    def __sklearn_is_fitted__(self):
        return hasattr(self, "net_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = takes_tables(self.net)
        tags.transformer_tags.preserves_dtype = []  # the output has the net's dtype
        return tags
