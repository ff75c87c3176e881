"""RedundancyPruner: the shell; the strategies are in ``_orders``."""

import os
from copy import deepcopy
from dataclasses import replace
from numbers import Integral, Real

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    MetaEstimatorMixin,
    _fit_context,
    clone,
)
from sklearn.utils import check_random_state, get_tags
from sklearn.utils._param_validation import HasMethods, Hidden, Interval, RealNotInt, StrOptions
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    _routing_enabled,
    process_routing,
)
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_method_params, check_is_fitted
from skorch import NeuralNetClassifier
from torch import nn

from .._runtime.fitting import CallbackSupportMixin, FitProgress, unfitted_on_error, with_callbacks
from .._samples.datasets import Items, is_dataset
from .._samples.given import given, index_of, require_taking, rows_of
from .._skorch.labels import checked_classes
from .._skorch.nets import is_skorch_net, net_input, unfrozen
from .._skorch.scoring import ends_in_skorch, kinds_taken, prepared
from ..cluster._farthest_point import resolve_n_clusters
from ._comparison import compared
from ._final import Final, retrain, seeded_at_the_end
from ._parameters import check_parameters
from ._scoring import score_samples, stage
from ._selection import kept_mask
from ._strategies import CANDIDATES, STRATEGIES, strategy_of
from ._table import frame_of


def _estimator_has(method):
    """Whether the final estimator has a method; a net that is retrained is a classifier."""

    def check(self):
        estimator = getattr(self, "estimator_", self.estimator)
        if estimator is None:
            estimator = NeuralNetClassifier if self.net is None else self.net
        getattr(unfrozen(estimator), method)
        return True

    return check


class RedundancyPruner(CallbackSupportMixin, MetaEstimatorMixin, ClassifierMixin, BaseEstimator):
    """Meta-estimator that drops redundant training samples before it fits a classifier.

    A scoring net is trained on all samples, the samples are ordered by a strategy, and the
    first of the order go; the final estimator is fitted on the rest. Like
    :class:`~sklearn.feature_selection.RFE`, with rows for columns.

    Parameters
    ----------
    estimator : classifier, default=None
        Fitted on the kept rows; None retrains the scoring net.
    net : skorch classifier, Pipeline that ends in one, or nn.Module, default=None
        Scores the samples; it must emit logits. The steps of a Pipeline prepare X for it alone.
        None means ``estimator`` if that is or ends in a skorch net, else a small default net built
        from the data, also of tables with categories, strings and missing values, and of sparse X.
        A net that is trained already is ``FrozenEstimator(net)``; its integer labels are logit
        columns. So is a plain ``nn.Module``, which is used as it is.
    strategy : str, callable, list of these or "auto", default="herding"
        What is kept and what goes:

        * ``"herding"``: the kept samples' mean feature follows the class's.
        * ``"clean_herding"``: samples whose label the others contradict go first, then by herding.
          A label is contradicted where ridge regression on all other samples, in the features of
          the label-free pNTK, prefers another class.
        * ``"coverage"``: farthest point traversal of the cosine kernel within each class.
        * ``"clean_coverage"``: contradicted samples go first, too; of the rest some medoids of each
          class stay longest, then the same traversal.
        * ``"redundant"``: a sample goes the sooner, the more another one dominates it.
        * ``"head"``: random samples of the largest cluster, then of the next.
        * ``"redundant+head"``: the redundant ones, then the head of what is left.
        * ``"keep_head"``: the smallest clusters go first.
        * controls: ``"random"`` (stratified), ``"el2n"`` and ``"grand"`` (the easiest go),
          ``"k_center"`` (on the last layer's inputs), ``"k_center_input"`` (on X), ``"aum"``,
          ``"small_loss"``, ``"forgetting"``, ``"ccs"``, ``"moderate"``, ``"d2"``,
          ``"net_clean_random"`` (what the trained net misclassifies goes first, then random rows),
          ``"loo_infinite"`` and ``"loo_rbf"`` (as ``"clean_herding"``, by kernels of X).
        * a function of the samples that returns all rows, the first to go first; see
          :ref:`own_strategy`.
        * a list of candidates: that is taken with which the final estimator is most often right on
          held-out rows, at this fraction. ``"auto"`` means ``["herding", "clean_herding",
          "random"]``.
    prune_fraction : float in [0, 1) or "auto", default=0.2
        ``round(prune_fraction * n_samples)`` rows are dropped; one that would empty its class
        is passed over. ``"auto"``, for ``"redundant"``, ``"head"`` and ``"redundant+head"``,
        is the paper's recipe: all redundant samples, ``head_fraction`` of the largest cluster,
        or both; the last of a class stays.
    kernel : {"lpntk", "pntk", "pntk_first", "loss_gradient"} or callable, default="lpntk"
        The kernel of the kernel strategies, as in
        :func:`~sklearn_lpntk.kernels.empirical_ntk`.
    scope : {"all", "class"}, default="all"
        Whether the paper's strategies compare and cluster across classes, and whether contradicted
        samples go first among all samples or, so that each class loses its share, in each class.
    n_clusters : int or float, default=0.1
        Clusters of the cluster strategies; a float is a fraction of the samples. With
        ``scope="class"`` it counts for each class, and never more than there are samples to
        cluster.
    head_fraction : float in [0, 1], default=0.1
        Part of the largest cluster that ``prune_fraction="auto"`` drops.
    budget : {"epochs", "steps"}, default="epochs"
        How long a skorch net is retrained on the kept rows: for its ``max_epochs``, or for as many
        optimizer steps as they are on all rows, to the nearest epoch. Other final estimators take
        no notice. Only ``max_epochs`` is changed: early stopping still ends the training, and
        schedules that name epochs or steps are not stretched.
    parameters : str, sequence of str or callable, default=None
        Which of the scoring net's parameters the kernel is of, as in
        :func:`~sklearn_lpntk.kernels.empirical_ntk`. None means all.
    memory : str or joblib.Memory, default=None
        Caches the trained scoring net, and the order of each strategy, so that a grid over
        fractions and strategies trains it once a fold for each way of training: stopped early for
        the ``clean_`` strategies, recorded for those that look at it. Needs an int
        ``random_state``. The folder holds pickles: open only those that you trust.
    n_jobs : int, default=None
        Workers for features, classes and tiles of the kernel: threads, or what
        ``joblib.parallel_config`` says, such as a Dask cluster. They change nothing in the
        result.
    random_state : int, RandomState instance or None, default=None
        Initial weights, batches, and the random strategies.
    verbose : int, default=0
        Print a line for each stage of a fit, and while it runs how far it has come.
    n_components : int, default=None
        Compare sketches of this size instead of the features themselves, for nets whose factors
        exceed the memory; see :func:`~sklearn_lpntk.kernels.empirical_ntk` for the error.
        For the strategies that compare pairs by the kernel: not for ``"grand"``, which takes exact
        norms, and those that use no kernel.
    refine : bool, default=False
        Compute exactly what the sketch finds: of each sample the ten most redundant pairs, for
        ``"redundant"`` and ``"redundant+head"``; other strategies take no notice. A score is
        then at most the exact one. The exact features are kept in memory, or computed anew.
    precision : {"full", "screened"}
        Without effect: products in bfloat16 saved no time. It will be removed.
    store : path-like, default=None
        A folder that keeps the features between runs, for more than fit into memory. With
        ``n_components`` it needs an int ``random_state``. One of another net or data set is
        refused, as that of each fold is: in a grid search use ``memory`` instead.

    Attributes
    ----------
    estimator_ : classifier
        Fitted on the kept rows; not after `fit_resample`.
    net_ : skorch net
        The trained scoring net, where the strategy needs one.
    classes_ : ndarray of shape (n_classes,)
        The labels.
    support_ : ndarray of shape (n_samples,), bool
        The rows that were kept.
    sample_indices_, pruned_indices_ : ndarray of shape (n_kept,) and (n_pruned,)
        The rows that were kept and dropped, ascending.
    prune_order_ : ndarray of shape (n_samples,)
        All rows; the first is the first to go.
    contradicted_ : ndarray of shape (n_samples,), bool
        Whether the other samples contradict a label; ``"clean_herding"`` and its relatives only.
    best_strategy_ : str
        The one that was taken of several candidates.
    selection_scores_ : dict of str to float
        Accuracy of the final estimator on held-out rows, by candidate.
    redundancy_ : ndarray of shape (n_samples,)
        ``max_{j != i} kappa_ij / kappa_ii`` (j in i's class with ``scope="class"``, -inf for
        the only one of its class), inf for a sample without gradient; ``"redundant"`` and
        ``"redundant+head"`` only.
    dominators_ : ndarray of shape (n_samples,)
        For a redundant row the one that dominates it, else -1; where ``redundancy_`` is.
    n_redundant_ : int
        How many rows are redundant: ``kappa_ij > kappa_ii (1 + 1e-5)`` for some j, or equal
        in X and y to an earlier row.
    labels_, cluster_centers_indices_ : ndarray of shape (n_samples,) and (n_clusters,)
        Clusters, for the cluster strategies; -1 for rows that were not clustered.
    n_features_in_ : int
        ``X.shape[1]`` seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features seen in `fit`, where X has string names.

    See Also
    --------
    LpNTKTransformer : The features behind the kernel.
    FarthestPointClustering : The clustering behind the cluster strategies.

    Notes
    -----
    It has no ``transform``: a scikit-learn transformer may not change the number of rows.
    In imbalanced-learn's Pipeline it is a sampler by `fit_resample`.

    No strategy wins everywhere. Where data is scarce for the task, every rule that prefers
    hard or isolated samples loses to random ones; put the strategy into the grid beside the
    fraction, with ``"random"`` in it, or take ``"auto"``. The paper's rule ``"redundant"`` [1]_
    marks most samples of an easy data set and does worse than random subsets of the same size.

    A net that is trained for ``"clean_herding"`` or ``"clean_coverage"``, and the default net for
    all strategies that do not look at its training, stops where the loss of a held-out fifth of
    each class no longer falls (after 2 epochs, and the best one counts): one that has learned wrong
    labels by heart has features that agree with them. A frozen net is taken as it is.

    ``"auto"`` trains the scoring net once, as all its candidates need it. They order what is not
    held out, and the final estimator is fitted to what each keeps; a fifth of each class is held
    out, with fewer than 5,000 rows on up to five such splits. Held-out labels are as noisy as the
    others. It warns where random rows do as well, within a standard error.

    A regression of labels prefers large classes where they overlap: of a rare one ``"clean_"``
    strategies may contradict most rows, and warn; with ``scope="class"`` the class keeps its share.

    References
    ----------
    .. [1] "lpNTK: Better Generalisation with Less Data via Sample Interaction During
       Learning", sections 4.2, 4.3 and E.2. arXiv:2401.08808
    .. [2] Welling, "Herding dynamical weights to learn", ICML 2009.
    .. [3] Paul, Ganguli and Dziugaite, "Deep Learning on a Data Diet" (EL2N, GraNd), 2021.
    .. [4] Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set
       Approach" (k-center), 2018.
    .. [5] Pleiss et al., "Identifying Mislabeled Data using the Area Under the Margin Ranking",
       2020. arXiv:2001.10528
    .. [6] Han et al., "Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy
       Labels" (small loss), 2018. arXiv:1804.06872
    .. [7] Toneva et al., "An Empirical Study of Example Forgetting during Deep Neural Network
       Learning", 2018. arXiv:1812.05159
    .. [8] Zheng et al., "Coverage-centric Coreset Selection for High Pruning Rates" (CCS), 2023.
       arXiv:2210.15809
    .. [9] Xia et al., "Moderate Coreset: A Universal Method of Data Selection for Real-world
       Data-efficient Deep Learning", 2023.
    .. [10] Maharana, Yadav and Bansal, "D2 Pruning: Message Passing for Balancing Diversity and
       Difficulty in Data Pruning", 2023. arXiv:2310.07931

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_lpntk import RedundancyPruner
    >>> X, y = load_iris(return_X_y=True)
    >>> pruner = RedundancyPruner(
    ...     LogisticRegression(max_iter=1000), prune_fraction=0.5, random_state=0
    ... ).fit(X, y)
    >>> pruner.support_.sum()
    np.int64(75)
    >>> pruner.score(X, y) > 0.9
    True
    """

    # imbalanced-learn's ensembles ask samplers how they sample
    _sampling_type = "bypass"

    _parameter_constraints = {
        "estimator": [HasMethods(["fit", "predict"]), None],
        "net": [HasMethods(["fit", "predict"]), nn.Module, None],
        "strategy": [StrOptions({*STRATEGIES, "auto"}), callable, list, tuple],
        "prune_fraction": [Interval(Real, 0, 1, closed="left"), StrOptions({"auto"})],
        "kernel": [
            StrOptions({"lpntk", "pntk", "pntk_first", "loss_gradient"}),
            callable,
        ],
        "scope": [StrOptions({"all", "class"})],
        "n_clusters": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="right"),
        ],
        "head_fraction": [Interval(Real, 0, 1, closed="both")],
        "budget": [StrOptions({"epochs", "steps"})],
        "parameters": [str, list, tuple, callable, None],
        "memory": [str, HasMethods(["cache"]), None],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "refine": ["boolean"],
        "precision": [StrOptions({"full", "screened"}), Hidden(StrOptions({"deprecated"}))],
        "store": [str, os.PathLike, None],
    }

    def __init__(
        self,
        estimator=None,
        *,
        net=None,
        strategy="herding",
        prune_fraction=0.2,
        kernel="lpntk",
        scope="all",
        n_clusters=0.1,
        head_fraction=0.1,
        budget="epochs",
        parameters=None,
        memory=None,
        n_jobs=None,
        random_state=None,
        verbose=0,
        n_components=None,
        refine=False,
        precision="deprecated",
        store=None,
    ):
        self.estimator = estimator
        self.net = net
        self.strategy = strategy
        self.prune_fraction = prune_fraction
        self.kernel = kernel
        self.scope = scope
        self.n_clusters = n_clusters
        self.head_fraction = head_fraction
        self.budget = budget
        self.parameters = parameters
        self.memory = memory
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose
        self.n_components = n_components
        self.refine = refine
        self.precision = precision
        self.store = store

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, **fit_params):
        """Score and prune the samples, then fit the final estimator on the kept rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Training samples: an array of numbers, a table, a sparse matrix, a dict or tuple of
            arrays for a net with several inputs, or a map-style data set. The final estimator gets
            the kept rows as they are.
        y : array-like of shape (n_samples,)
            Class labels of any kind; None takes those of a data set's items.
        **fit_params
            Passed to the final estimator's ``fit``; those with one entry a sample, such as
            ``sample_weight``, are sliced to the kept rows.

        Returns
        -------
        self : RedundancyPruner

        Raises
        ------
        TypeError
            If ``net`` is no skorch classifier, ``estimator`` a regressor, or X a data set that
            ``estimator`` can't be fitted to.
        ValueError
            If there is one class only, if the net emits probabilities, if its training
            diverges, if X does not fit it, or if ``prune_fraction="auto"`` goes with a strategy
            that has no recipe.
        """
        fit_params = self._routed("fit", fit_params)
        check_parameters(self, self._strategies)
        if self.estimator is None and isinstance(self.net, nn.Module):
            raise TypeError(
                "estimator=None retrains the scoring net, but net is a plain module, and nothing "
                "says how to train it: pass estimator=, or net= as a skorch classifier."
            )
        with unfitted_on_error(self):
            progress = FitProgress(self, self._n_stages, X, y, verbose=self.verbose)
            found = self._select(X, y, progress, fit_params)
            final = self._final_estimator(found)
            with progress.stage("fit final estimator", final):
                self._final = self._fit_final(final, found, X, y, fit_params)
            self._store(found)
            self.estimator_ = self._final.estimator
            progress.end()
        return self

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=False)
    def fit_resample(self, X, y=None):
        """Score and prune the samples, and return the kept rows; fits no final estimator.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Training samples.
        y : array-like of shape (n_samples,)
            Class labels.

        Returns
        -------
        X_kept, y_kept : of the types of X and y
            The kept rows, in their order: of a dict of arrays a dict, of a data set or a loader a
            ``Subset`` of the data set.

        Raises
        ------
        TypeError, ValueError
            As in `fit`.
        """
        check_parameters(self, self._strategies)
        with unfitted_on_error(self):
            progress = FitProgress(self, self._n_stages - 1, X, y, verbose=self.verbose)
            found = self._select(X, y, progress)
            self._store(found)
            progress.end()
        kept, y = self.sample_indices_, found.y if y is None else y
        return rows_of(X, kept), rows_of(y, kept)

    def prune_path(self, X, y, fractions):
        """Kept rows of several fractions, from one scoring.

        Parameters
        ----------
        X, y : as in `fit`
            Training samples and their labels.
        fractions : iterable of float or "auto"
            Values of ``prune_fraction``.

        Returns
        -------
        kept : iterator of ndarray of shape (n_kept,)
            The rows that are kept at each fraction, ascending. A larger fraction keeps a
            subset of what a smaller one keeps, unless several strategies are compared, of which
            each fraction may have another best one. Which redundant row a class keeps where
            ``"auto"`` would empty it may differ from `fit`, which computes no scores then.

        Raises
        ------
        ValueError
            If a fraction is not allowed, or as in `fit`.
        """
        if isinstance(fractions, (Real, str)):
            raise TypeError(
                f"fractions must be a list of values of prune_fraction; got {fractions!r}: pass "
                f"[{fractions!r}]."
            )
        fractions = list(fractions)
        path = [clone(self).set_params(prune_fraction=f) for f in fractions]
        for pruner in path:
            pruner._validate_params()
            check_parameters(pruner, pruner._strategies)
        decide_only, scoring = all(pruner._decides_only for pruner in path), clone(self)
        found = scoring._scored(X, y, None, decide_only=decide_only)
        if len(self._strategies) == 1:
            ordering = found.ordered(self._strategies[0])
            ordering.tell_doubt()
            return (np.flatnonzero(pruner._kept(ordering, found.y)) for pruner in path)
        path = [scoring.set_params(prune_fraction=f)._chosen(found, X, y) for f in fractions]
        return (np.flatnonzero(chosen.kept) for chosen in path)

    # -- selection ------------------------------------------------------------------------

    @property
    def _decides_only(self):
        """Whether which rows are redundant is all that is asked for, not how much."""
        recipe = self.prune_fraction == "auto" and self._strategies == ["redundant"]
        return recipe and not self.refine  # which takes candidates with their scores

    @property
    def _strategies(self):
        """The candidates, one or more."""
        if isinstance(self.strategy, list | tuple):
            return list(self.strategy)
        return list(CANDIDATES) if self.strategy == "auto" else [self.strategy]

    @property
    def _n_stages(self):
        return 3 + (len(self._strategies) > 1)

    @property
    def _scoring_net(self):
        own = is_skorch_net(self.estimator) or ends_in_skorch(self.estimator)
        return self.estimator if self.net is None and own else self.net

    @property
    def _kinds_taken(self):
        """What X may be; a final net gets it as it is, and takes numbers."""
        own = is_skorch_net(self.estimator)
        return {"tables": False, "raw": False} if own else kinds_taken(self._scoring_net)

    def _select(self, X, y, progress, fit_params=None):
        """Everything that `fit` and `fit_resample` find out, without storing any of it."""
        found = self._scored(X, y, progress, decide_only=self._decides_only)
        return self._chosen(found, X, y, progress, fit_params)

    def _chosen(self, found, X, y, progress=None, fit_params=None):
        """The order of the best strategy, and what it keeps."""
        found, strategies = replace(found), self._strategies
        best, *others = strategies
        self._comparison = None
        if others:
            with stage(progress, "compare strategies"):
                self._comparison = self._compared(found, X, y, fit_params or {})
            best = strategies[list(self._comparison.hits).index(self._comparison.best)]
        found.ordering = found.ordered(best)
        found.kept = self._kept(found.ordering, found.y)
        found.ordering.tell_doubt()
        return found

    def _compared(self, found, X, y, fit_params):
        """The candidates by the final estimator's accuracy on rows that are held out."""
        y = found.y if y is None else y

        def hits_of(strategy, rows, others):
            kept = np.zeros(len(found.y), dtype=bool)
            kept[rows] = self._kept(found.ordered(strategy, rows), found.y[rows])
            part = replace(found, kept=kept)
            final = self._fit_final(self._final_estimator(found), part, X, y, fit_params)
            return self._predicted(final, rows_of(X, others)) == found.y[others]

        rng = np.random.default_rng(found.net_seed)
        comparison = compared(self._strategies, found.samples.columns, rng, hits_of)
        if round(self.prune_fraction * len(y)):
            comparison.warn_if_random(self.prune_fraction)
        return comparison

    def _scored(self, X, y, progress, *, decide_only):
        """The samples, and a net that was trained on them, where the strategies need one."""
        self._row_names = index_of(X, y)
        strategies = [strategy_of(strategy) for strategy in self._strategies]
        retrains = self.estimator is None or is_skorch_net(self.estimator)
        kinds = self._kinds_taken
        kinds["raw"] |= not (any(s.needs_numbers for s in strategies) or retrains)
        X, y = given(self, X, y, **kinds)
        checked_classes(y)
        if isinstance(self.n_clusters, Integral) and any(s.clusters for s in strategies):
            resolve_n_clusters(self.n_clusters, len(y))  # raises where there are too many
        return score_samples(
            self._scoring_net,
            X,
            y,
            self._strategies,
            {
                "kernel": self.kernel,
                "scope": self.scope,
                "n_clusters": self.n_clusters,
                "decide_only": decide_only,
                "n_components": self.n_components,
                "refine": self.refine,
                "parameters": self.parameters,
            },
            {"n_jobs": self.n_jobs, "store": self.store},
            retrains=self.estimator is None,
            seed=check_random_state(self.random_state).randint(np.iinfo(np.int32).max),
            memory=self.memory,
            progress=progress,
        )

    def _kept(self, ordering, y):
        order = ordering.prune_order
        if self.prune_fraction == "auto":  # the recipe names rows; no other one goes instead
            n_drop = ordering.n_recipe(self.head_fraction)
            return kept_mask(order[:n_drop], y, n_drop)
        return kept_mask(order, y, round(self.prune_fraction * len(y)))

    def _store(self, found):
        ordering = found.ordering
        self.classes_ = found.classes
        self._scoring_steps = None if found.scorer is None else found.scorer.steps
        self.support_ = found.kept
        self.sample_indices_ = np.flatnonzero(found.kept)
        self.pruned_indices_ = np.flatnonzero(~found.kept)
        self.prune_order_ = ordering.prune_order
        for name, value in (
            ("net_", found.trained),
            ("redundancy_", ordering.redundancy),
            ("dominators_", ordering.dominators),
            ("n_redundant_", ordering.n_redundant),
            ("_scores", ordering.scores),
            ("_stand_ins", ordering.stand_ins),
            ("labels_", ordering.labels),
            ("cluster_centers_indices_", ordering.centers),
            ("contradicted_", ordering.contradicted),
            ("best_strategy_", None if self._comparison is None else self._comparison.best),
            ("selection_scores_", None if self._comparison is None else self._comparison.scores),
        ):
            if value is not None:
                setattr(self, name, value)

    # -- the final estimator --------------------------------------------------------------

    def _final_estimator(self, found):
        return clone(unfrozen(found.scorer.net) if self.estimator is None else self.estimator)

    def _fit_final(self, final, found, X, y, fit_params):
        kept = np.flatnonzero(found.kept)
        params = _check_method_params(found.y, fit_params, indices=kept)
        if not is_skorch_net(final):
            if not ends_in_skorch(final):
                require_taking(final, X)
            y = found.y if y is None else y
            with seeded_at_the_end(final, found.net_seed):
                return Final(final.fit(rows_of(X, kept), rows_of(y, kept), **params))
        own = self.estimator is not None
        steps = None if own else found.scorer.steps
        return Final(*retrain(final, found, kept, self.budget, params, own=own), steps)

    def _predicted(self, final, X):
        if final.encoder is None:
            return final.estimator.predict(X)
        return final.encoder.predict(final.estimator, self._net_input(X, final))

    @available_if(_estimator_has("predict"))
    def predict(self, X):
        """Labels predicted by the final estimator.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples, in any form that `fit` takes.

        Returns
        -------
        y : ndarray of shape (n_samples,)
        """
        check_is_fitted(self, "estimator_")
        return self._predicted(self._final, X)

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X):
        """Probabilities predicted by the final estimator.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples, in any form that `fit` takes.

        Returns
        -------
        p : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``. A net with more logits than there are classes in y
            is conditioned on these.
        """
        check_is_fitted(self, "estimator_")
        if self._final.encoder is None:
            return self.estimator_.predict_proba(X)
        return self._final.encoder.probabilities(self.estimator_, self._net_input(X, self._final))

    @available_if(_estimator_has("decision_function"))
    def decision_function(self, X):
        """Decision values of the final estimator.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples, in any form that `fit` takes.

        Returns
        -------
        decision : ndarray of shape (n_samples,) or (n_samples, n_classes)
        """
        check_is_fitted(self, "estimator_")
        return self.estimator_.decision_function(X)

    def score(self, X, y=None, **score_params):
        """Score of the final estimator; accuracy for a net.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples, in any form that `fit` takes.
        y : array-like of shape (n_samples,)
            Their labels.
        **score_params
            Passed to the final estimator's ``score``, such as ``sample_weight``.

        Returns
        -------
        score : float
        """
        check_is_fitted(self, "estimator_")
        y = Items(X).labels() if y is None and is_dataset(X) else y
        if self._final.encoder is not None:
            return super().score(X, y, **score_params)
        return self.estimator_.score(X, y, **self._routed("score", score_params))

    def _net_input(self, X, final):
        """X for a net, checked; any other final estimator checks for itself."""
        X, _ = given(self, X, reset=False, **self._kinds_taken)
        return net_input(final.estimator, prepared(final.steps, X))

    # -- queries --------------------------------------------------------------------------

    def get_support(self, indices=False):
        """The rows that were kept.

        Parameters
        ----------
        indices : bool, default=False
            Indices instead of a mask.

        Returns
        -------
        support : ndarray of shape (n_samples,) or (n_kept,)
        """
        check_is_fitted(self)
        return self.sample_indices_ if indices else self.support_

    def to_frame(self):
        """One line for each training row: its rank, whether it was kept, and why.

        Returns
        -------
        frame : pandas.DataFrame
            Its index is that of the X given to `fit`, or of y, where one is a frame or a series,
            and rows are named by it. Columns ``kept`` and ``prune_rank`` (0 goes first), and where
            they were computed:

            * ``score``: what the order was made by. For ``"clean_herding"`` and its relatives the
              leave-one-out margin of the label, its prediction minus that of the best other class:
              negative ones are contradicted and go first (with ``scope="class"`` in their class),
              the smallest before the others. For ``"el2n"`` and ``"grand"`` the norm, for
              ``"aum"`` the margin, for ``"forgetting"`` the count: small ones go first. For
              ``"small_loss"`` the loss and for ``"redundant"`` the redundancy: large ones go first.
              ``"ccs"`` drops the smallest margins and spreads over the others, ``"moderate"`` keeps
              the median distances to the class's mean, and ``"d2"`` takes the largest difficulty
              among neighbours, which then counts less in theirs: there the order is not that of the
              numbers.
            * ``stand_in`` and ``cosine``: for a pruned row the kept one of its class that is most
              similar to it, and how similar; of every strategy that compares by the kernel.
            * ``redundancy``, ``dominator`` and ``cluster``: ``redundancy_``, the row named by
              ``dominators_``, and ``labels_``.
        """
        check_is_fitted(self)
        return frame_of(self)

    # -- scikit-learn ---------------------------------------------------------------------

    def _routed(self, method, params):
        if not params or not _routing_enabled():
            return params
        routed = process_routing(self, method, **params)
        return {} if self.estimator is None else routed.estimator[method]

    def get_metadata_routing(self):
        """Metadata routing: everything goes to the final estimator.

        Returns
        -------
        routing : MetadataRouter
        """
        router = MetadataRouter(owner=self)
        if self.estimator is not None:
            mapping = MethodMapping().add(caller="fit", callee="fit")
            mapping.add(caller="score", callee="score")
            router.add(estimator=self.estimator, method_mapping=mapping)
        return router

    def __sklearn_is_fitted__(self):
        return hasattr(self, "support_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = self._kinds_taken["tables"]
        if self.estimator is not None and not is_skorch_net(self.estimator):
            own = get_tags(self.estimator)
            tags.classifier_tags = deepcopy(own.classifier_tags) or tags.classifier_tags
            tags.input_tags.sparse = own.input_tags.sparse
            tags.input_tags.allow_nan &= own.input_tags.allow_nan
        return tags
