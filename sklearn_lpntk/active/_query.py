"""Look-ahead queries: which label would change most, without any retraining."""

from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from .._engine.inputs import n_rows
from .._samples.given import n_samples_of
from ..linearized._kernels import NAMES
from ._objectives import OBJECTIVES, labels_as_outputs, pseudo_labels, scores, two_columns
from ._samples import Comparer
from ._updates import Candidates, Labelled

OPTIONS = {
    "objective": [StrOptions(set(OBJECTIVES))],
    "pseudo_labels": [StrOptions({"net", "linearized"})],
    "kernel": [StrOptions(set(NAMES)), callable],
    "alpha": [Interval(Real, 0, None, closed="left")],
    "outputs": [StrOptions({"logits", "probabilities"})],
}
CHECKED = {"prefer_skip_nested_validation": True}


class _Known:
    """The labelled samples with all that queries about others need."""

    def __init__(self, net, X, y, kernel, alpha, form):
        self.comparer = Comparer(net, kernel, form)
        self.samples = self.comparer.samples(X, "X_labelled")
        residuals = self._residuals(self.samples, y, "y_labelled")
        self.labelled = Labelled(self.comparer.matrix(self.samples), residuals, alpha)

    def _residuals(self, samples, y, name):
        n, n_outputs = samples.outputs.shape
        if np.shape(y) not in ((n,), (n, 1)):
            raise ValueError(f"{name} must have shape ({n},), a label a sample; got {np.shape(y)}.")
        columns = self.comparer.columns(y, n_outputs, name)
        left = labels_as_outputs(columns, n_outputs) - samples.outputs
        return left.reshape(len(left) * self._n_rows(samples), -1)

    @staticmethod
    def _n_rows(samples):
        return getattr(samples.parts[0], "n_cotangents", 1)

    def with_more(self, X, y):
        """With more labelled samples: nothing is computed again."""
        new = self.comparer.samples(X, "x")
        more = object.__new__(_Known)
        more.comparer, more.samples = self.comparer, self.samples.with_more(new)
        more.labelled = self.labelled.added(
            self.comparer.matrix(self.samples, new),
            self.comparer.matrix(new),
            self._residuals(new, y, "y"),
        )
        return more

    def candidates(self, pool, seen=None):
        """What labels of a pool would do to it, or to other samples."""
        kernel = self.comparer.matrix
        others, outputs = None, None
        if seen is not None:
            others = kernel(seen, self.samples), kernel(seen, pool)
            outputs = seen.outputs
        cross = kernel(pool, self.samples)
        return Candidates(self.labelled, cross, kernel(pool), pool.outputs, others, outputs)


@validate_params(OPTIONS, **CHECKED)
def lookahead_scores(
    net,
    X_labelled,
    y_labelled,
    X_pool,
    *,
    objective="change",
    pseudo_labels="net",
    kernel="pntk",
    alpha=1e-6,
    X_eval=None,
    outputs="logits",
):
    """How much the label of each sample of a pool would change, by the linearised network.

    Parameters
    ----------
    net : nn.Module, fitted skorch net, or fitted Pipeline that ends in one
        Trained on the labelled samples; it must emit logits.
    X_labelled, y_labelled : array-like of shape (n_labelled, ...) and (n_labelled,)
        The labelled samples, in any form that the net takes, and their labels: those of the net's
        ``classes_``, or logit columns.
    X_pool : array-like of shape (n_pool, ...)
        Samples without labels: the candidates.
    objective : {"change", "agreement", "expected_risk"}, default="change"
        What a label is worth. "change": sum over the pool of how far outputs move. "agreement":
        the share of the pool whose predicted class becomes another one. "expected_risk": minus the
        pool's mean of one less the largest probability, averaged over the candidate's labels by
        the net's probabilities.
    pseudo_labels : {"net", "linearized"}, default="net"
        Which label a candidate is thought to have: the net's prediction, or that of its
        linearisation on the labelled samples. "expected_risk" takes all labels.
    kernel : {"pntk", "pntk_first", "entk", "entk_trace"} or callable, default="pntk"
        As in :class:`~sklearn_lpntk.linearized.NTKClassifier`, or a callable ``kernel(X, Y=None)``
        of arrays, such as :class:`~sklearn_lpntk.infinite.InfiniteWidthNTK`.
    alpha : float >= 0, default=1e-6
        Ridge, in units of the mean of the diagonal of the labelled samples' kernel. Below 1e-10 it
        counts as that.
    X_eval : array-like of shape (n_eval, ...), default=None
        Where changes are looked at; None means the pool.
    outputs : {"logits", "probabilities"}, default="logits"
        What the regression continues. Take "probabilities" for a network that was trained with
        cross-entropy: see Notes.

    Returns
    -------
    scores : ndarray of shape (n_pool,)
        The highest is the first to be labelled.

    Raises
    ------
    TypeError, NotFittedError
        If ``net`` is no network, or not fitted.
    ValueError
        If labels are none of the net's, if the pool is empty, if samples do not fit to the net or
        have NaN in them, or if a callable kernel is no kernel.

    Warns
    -----
    UserWarning
        If ``alpha`` is too small for the kernel, so that a larger one was taken; if the pool is a
        data set with labels, which are not looked at.

    See Also
    --------
    LookaheadQuery : Queries in batches, with updates.
    lookahead_predict : What a label changes.

    Notes
    -----
    ``f+(x) = f(x) + k(x, X+) (k(X+, X+) + lambda I)^-1 (Y+ - f(X+))`` with X+ the labelled samples
    and the candidate: exact for networks of infinite width, trained on the squared error [1]_. One
    Cholesky factor of the labelled samples' kernel serves all candidates, in O(L^3 + U L^2 + U^2
    (L + K)) operations for L labelled samples, U candidates and K outputs ("entk" has K rows for
    every sample). Outputs of candidates are made in blocks.

    The formula continues a training on the squared error, after which logits are near one-hot
    labels. Cross-entropy brings probabilities there, and logits far beyond: the formula would move
    all of them back, whatever the candidate. On digits, 8 cycles of 10 labels with networks
    trained with cross-entropy, ``outputs="logits"`` is no better than random queries, and
    "probabilities" is: docs/active.rst has the table. With "probabilities" the
    kernel is still that of the logits.

    References
    ----------
    .. [1] Mohamadi, Bae and Sutherland, "Making Look-Ahead Active Learning Strategies Feasible with
       Neural Tangent Kernels", NeurIPS 2022. arXiv:2206.12569

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_lpntk.active import lookahead_scores
    >>> X, y = load_digits(return_X_y=True)
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    >>> lookahead_scores(net, X[:20] / 16, y[:20], X[20:100] / 16).shape
    (80,)
    """
    known = _Known(net, X_labelled, y_labelled, kernel, alpha, outputs)
    _require_samples(X_pool, "X_pool")
    inputs = known.comparer.pool(X_pool)
    pool = known.comparer.of_inputs(inputs, X_pool)
    seen = None if X_eval is None else known.comparer.samples(X_eval, "X_eval")
    candidates = known.candidates(pool, seen)
    return scores(candidates, pool.outputs, objective, pseudo_labels, outputs)


@validate_params({name: OPTIONS[name] for name in ("kernel", "alpha", "outputs")}, **CHECKED)
def lookahead_predict(
    net,
    X_labelled,
    y_labelled,
    x_new,
    y_new,
    X_eval,
    *,
    kernel="pntk",
    alpha=1e-6,
    outputs="logits",
):
    """Outputs after some new labels, by the linearised network.

    Parameters
    ----------
    net, X_labelled, y_labelled, kernel, alpha, outputs
        As in :func:`lookahead_scores`.
    x_new, y_new : array-like of shape (k, ...) and (k,)
        New samples with their labels; one is an array of length one.
    X_eval : array-like of shape (n_eval, ...)
        Whose outputs are wanted.

    Returns
    -------
    outputs : ndarray of shape (n_eval, n_outputs)
        As the network's logits, or with ``outputs="probabilities"`` a regression on these, which
        may leave 0 and 1; of one logit that of the second class, stretched to -1 and 1.

    Raises
    ------
    TypeError, NotFittedError, ValueError
        As :func:`lookahead_scores`.

    Warns
    -----
    UserWarning
        If ``alpha`` is too small for the kernel, so that a larger one was taken.

    See Also
    --------
    lookahead_scores : What the label of each sample of a pool would change.

    Examples
    --------
    >>> import torch
    >>> from sklearn_lpntk.active import lookahead_predict
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Linear(2, 2).double()
    >>> X = torch.eye(2)
    >>> lookahead_predict(net, X[:1], [0], X[1:], [1], X).round(3) + 0.0
    array([[1., 0.],
           [0., 1.]])
    """
    known = _Known(net, X_labelled, y_labelled, kernel, alpha, outputs).with_more(x_new, y_new)
    seen = known.comparer.samples(X_eval, "X_eval")
    cross = known.comparer.matrix(seen, known.samples)
    labelled = known.labelled
    change = labelled.whiten(cross.T).T @ labelled.whitened
    return seen.outputs + change.reshape(seen.outputs.shape)


def _require_samples(X, name):
    if n_samples_of(X) == 0:
        raise ValueError(f"{name} is empty: there is no sample to be queried.")


class LookaheadQuery(BaseEstimator):
    """Queries for labels by what they would change, without retraining in between.

    Parameters
    ----------
    net : nn.Module, fitted skorch net, or fitted Pipeline that ends in one
        Trained on the labelled samples; it must emit logits. It is used as it is.
    objective, pseudo_labels, kernel, alpha, outputs
        As in :func:`lookahead_scores`. The ridge is fixed in `fit`, in units of the mean of the
        diagonal of the kernel of the samples there.
    batch : {"top", "sequential"}, default="top"
        A batch is the samples of highest scores, or one after the other: each pick gets its pseudo
        label, and the next one is scored with it. That costs as many scorings, and spares samples
        that teach the same.
    max_candidates : int, default=4000
        Of a larger pool so many are candidates, by ``preselection``. Memory grows with the square:
        .9 GB for 4,000 candidates. None takes all.
    preselection : {"random", "uncertainty"}, default="random"
        Draw candidates, and look at changes in these; or take those with the smallest margin
        between the two largest outputs, and look at changes in as many that are drawn.
    random_state : int, RandomState instance or None, default=None
        Draws candidates.

    See Also
    --------
    lookahead_scores : The scores.
    sklearn_lpntk.active.skactiveml.NTKLookahead : The same for scikit-activeml.

    Notes
    -----
    `update` adds a border to the Cholesky factor of the labelled samples' kernel: the network, its
    features and its outputs stay, and later queries know the new labels. Retrain the network, and
    `fit` anew, when as many labels have come as there were.

    References
    ----------
    .. [1] Mohamadi, Bae and Sutherland, "Making Look-Ahead Active Learning Strategies Feasible with
       Neural Tangent Kernels", NeurIPS 2022. arXiv:2206.12569

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_lpntk.active import LookaheadQuery
    >>> X, y = load_digits(return_X_y=True)
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    >>> query = LookaheadQuery(net, batch="sequential").fit(X[:20] / 16, y[:20])
    >>> indices = query.query(X[20:100] / 16, n_queries=5)
    >>> query = query.update(X[20:100][indices] / 16, y[20:100][indices])
    >>> query.query(X[100:200] / 16).shape
    (1,)
    """

    _parameter_constraints = {
        "net": "no_validation",
        **OPTIONS,
        "batch": [StrOptions({"top", "sequential"})],
        "max_candidates": [Interval(Integral, 1, None, closed="left"), None],
        "preselection": [StrOptions({"random", "uncertainty"})],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        net,
        *,
        objective="change",
        pseudo_labels="net",
        kernel="pntk",
        alpha=1e-6,
        batch="top",
        max_candidates=4000,
        preselection="random",
        random_state=None,
        outputs="logits",
    ):
        self.net = net
        self.objective = objective
        self.pseudo_labels = pseudo_labels
        self.kernel = kernel
        self.alpha = alpha
        self.batch = batch
        self.max_candidates = max_candidates
        self.preselection = preselection
        self.random_state = random_state
        self.outputs = outputs

    def fit(self, X_labelled, y_labelled):
        """Take in the labelled samples.

        Parameters
        ----------
        X_labelled : array-like of shape (n_labelled, ...)
            Samples that the net was trained on, in any form that it takes.
        y_labelled : array-like of shape (n_labelled,)
            Their labels.

        Returns
        -------
        self : LookaheadQuery

        Raises
        ------
        TypeError, NotFittedError, ValueError
            As :func:`lookahead_scores`.

        Warns
        -----
        UserWarning
            If ``alpha`` is too small for the kernel, so that a larger one was taken.
        """
        vars(self).pop("_known", None)
        self._validate_params()
        self._random = check_random_state(self.random_state)
        self._known = _Known(
            self.net, X_labelled, y_labelled, self.kernel, self.alpha, self.outputs
        )
        return self

    def update(self, x, y):
        """Take in new labels, without any retraining.

        Parameters
        ----------
        x : array-like of shape (k, ...)
            The samples that were labelled.
        y : array-like of shape (k,)
            Their labels.

        Returns
        -------
        self : LookaheadQuery

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If x or y does not fit to the network.
        """
        self._known = self._fitted().with_more(x, y)
        return self

    def query(self, X_pool, n_queries=1, return_utilities=False):
        """The samples whose labels should be asked for.

        Parameters
        ----------
        X_pool : array-like of shape (n_pool, ...)
            Samples without labels, in any form that the net takes.
        n_queries : int, default=1
            How many.
        return_utilities : bool, default=False
            Whether their scores come along.

        Returns
        -------
        indices : ndarray of shape (n_queries,)
            Into ``X_pool``, the best first.
        utilities : ndarray of shape (n_pool,)
            Where ``return_utilities``: the scores of all samples, of a sequential batch those of
            its first step; nan where a sample was no candidate.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If the pool is empty, or has fewer samples (or fewer candidates) than ``n_queries``.

        Warns
        -----
        UserWarning
            If the pool is a data set with labels: they are not looked at.
        """
        indices, utilities = self._steps(X_pool, n_queries)
        return (indices, utilities[0]) if return_utilities else indices

    def _fitted(self):
        if not hasattr(self, "_known"):
            raise NotFittedError("This LookaheadQuery is not fitted yet; call fit first.")
        self._validate_params()
        self._known.comparer.require_same_network()
        return self._known

    def __sklearn_is_fitted__(self):
        return hasattr(self, "_known")

    def _steps(self, X_pool, n_queries):
        """Indices of a batch, and the utilities by which each was chosen: (n_steps, n_pool)."""
        known = self._fitted()
        _require_samples(X_pool, "X_pool")
        inputs = known.comparer.pool(X_pool)
        n, most = n_rows(inputs), self._most(n_rows(inputs))
        if not isinstance(n_queries, Integral) or not 1 <= n_queries <= most:
            raise ValueError(
                f"n_queries must be an int from 1 to {most}, the number of candidates in a pool of "
                f"{n} samples; got {n_queries!r}."
            )
        rows, pool, seen = self._picked(known.comparer, inputs, X_pool, most)
        candidates = known.candidates(pool, seen)
        utilities = np.full((n_queries if self.batch == "sequential" else 1, n), np.nan)
        taken = self._chosen(candidates, pool.outputs, n_queries, utilities, rows)
        return rows[taken], utilities

    def _most(self, n):
        return n if self.max_candidates is None else min(n, self.max_candidates)

    def _picked(self, comparer, inputs, X_pool, most):
        """The candidates' rows, these samples, and those that are looked at (None: the same)."""
        n = n_rows(inputs)
        if most == n:
            return np.arange(n), comparer.of_inputs(inputs, X_pool), None
        drawn = np.sort(self._random.choice(n, most, replace=False))
        some = comparer.of_inputs(inputs, X_pool, drawn)
        if self.preselection == "random":
            return drawn, some, None
        outputs = np.sort(two_columns(comparer.outputs_of(inputs)), 1)
        rows = np.sort(np.argsort(outputs[:, -1] - outputs[:, -2], kind="stable")[:most])
        return rows, comparer.of_inputs(inputs, X_pool, rows), some

    def _chosen(self, candidates, outputs, n_queries, utilities, rows):
        """Positions among the candidates, the best first; ties go to the first."""
        taken = []
        for step in range(len(utilities)):
            found = scores(
                candidates, outputs, self.objective, self.pseudo_labels, self._known.comparer.form
            )
            found[taken] = np.nan
            utilities[step, rows] = found
            if self.batch == "top":
                return np.argsort(-found, kind="stable")[:n_queries]
            best = int(np.nanargmax(found))
            taken.append(best)
            label = pseudo_labels(candidates, outputs, self.pseudo_labels)[best : best + 1]
            candidates.learn(best, labels_as_outputs(label, outputs.shape[1]))
        return np.array(taken)
