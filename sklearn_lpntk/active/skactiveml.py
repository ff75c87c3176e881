"""Look-ahead queries as a query strategy of scikit-activeml (extra ``active``)."""

import warnings

import numpy as np
from skactiveml.base import SingleAnnotatorPoolQueryStrategy
from skactiveml.utils import MISSING_LABEL, check_equal_missing_label, labeled_indices
from sklearn.base import clone
from torch import nn

from .._skorch.nets import is_skorch_net
from ._query import LookaheadQuery

__all__ = ["NTKLookahead"]


class NTKLookahead(SingleAnnotatorPoolQueryStrategy):
    """Look-ahead queries by the tangent kernel of a network, for scikit-activeml.

    Parameters
    ----------
    objective, pseudo_labels, kernel, alpha, batch, max_candidates, preselection
        As in :class:`~sklearn_lpntk.active.LookaheadQuery`.
    outputs : {"auto", "logits", "probabilities"}, default="auto"
        As there; "auto" means "probabilities" for a network whose criterion is the cross-entropy,
        scikit-activeml's default.
    missing_label : scalar, str, None or nan, default=nan
        What stands for a label that is not known.
    random_state : int, RandomState instance or None, default=None
        Draws candidates.

    See Also
    --------
    sklearn_lpntk.active.LookaheadQuery : The same without scikit-activeml.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from skactiveml.classifier import SkorchClassifier
    >>> from skactiveml.utils import MISSING_LABEL
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_lpntk.active.skactiveml import NTKLookahead
    >>> X, y_true = load_iris(return_X_y=True)
    >>> y = np.full(150, MISSING_LABEL)
    >>> y[::10] = y_true[::10]
    >>> classifier = SkorchClassifier(
    ...     module=torch.nn.Linear,
    ...     neural_net_param_dict={
    ...         "module__in_features": 4,
    ...         "module__out_features": 3,
    ...         "train_split": None,
    ...         "verbose": 0,
    ...     },
    ...     classes=[0, 1, 2],
    ... )
    >>> indices = NTKLookahead(random_state=0).query(X, y, classifier, batch_size=5)
    >>> indices.shape
    (5,)
    """

    def __init__(
        self,
        objective="change",
        pseudo_labels="net",
        kernel="pntk",
        alpha=1e-6,
        batch="top",
        max_candidates=4000,
        preselection="random",
        outputs="auto",
        missing_label=MISSING_LABEL,
        random_state=None,
    ):
        super().__init__(missing_label=missing_label, random_state=random_state)
        self.objective = objective
        self.pseudo_labels = pseudo_labels
        self.kernel = kernel
        self.alpha = alpha
        self.batch = batch
        self.max_candidates = max_candidates
        self.preselection = preselection
        self.outputs = outputs

    def query(
        self,
        X,
        y,
        clf,
        fit_clf=True,
        candidates=None,
        batch_size=1,
        return_utilities=False,
    ):
        """The samples whose labels should be asked for.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            All samples, with labels and without.
        y : array-like of shape (n_samples,)
            Their labels; ``missing_label`` where there is none.
        clf : skactiveml.classifier.SkorchClassifier
            Its network must emit logits.
        fit_clf : bool, default=True
            Whether a clone of it is fitted to X and y; else it is fitted already.
        candidates : array-like of int of shape (n_candidates,), or of (n_candidates, ...), \
                default=None
            Rows of X, or other samples; None means all samples without a label.
        batch_size : int, default=1
            How many.
        return_utilities : bool, default=False
            Whether the scores come along.

        Returns
        -------
        query_indices : ndarray of shape (batch_size,)
            Rows of X, or of ``candidates`` where these are samples.
        utilities : ndarray of shape (batch_size, n_samples) or (batch_size, n_candidates)
            Where ``return_utilities``: the scores at each pick; nan for what was no candidate.

        Raises
        ------
        TypeError
            If clf has no network of skorch.
        ValueError
            If there is no candidate or no label, or candidates have labels.
        """
        X, y, candidates, batch_size, return_utilities = self._validate_data(
            X, y, candidates, batch_size, return_utilities, True, {"allow_nd": True}
        )
        X_candidates, rows = self._transform_candidates(candidates, X, y, allow_only_unlabeled=True)
        batch_size = self._batch_size(batch_size, len(X_candidates))
        labelled = labeled_indices(y, missing_label=self.missing_label_)
        if not len(labelled):
            raise ValueError(
                "No sample has a label, and a query looks at what one more would change: label "
                "some first, for example drawn at random."
            )
        clf = self._fitted(clf, X, y, fit_clf)
        columns = np.searchsorted(clf.classes_, y[labelled])
        query = LookaheadQuery(
            clf.neural_net_,
            objective=self.objective,
            pseudo_labels=self.pseudo_labels,
            kernel=self.kernel,
            alpha=self.alpha,
            batch=self.batch,
            max_candidates=self.max_candidates,
            preselection=self.preselection,
            random_state=self.random_state_,
            outputs=self._outputs(clf.neural_net_),
        ).fit(X[labelled], columns)
        chosen, steps = query._steps(X_candidates, batch_size)
        return self._answer(chosen, steps, rows, len(X), return_utilities)

    def _batch_size(self, batch_size, n_candidates):
        """As many as there are candidates, at most."""
        if not n_candidates:
            raise ValueError("All samples have labels: there is no candidate for a query.")
        most = min(n_candidates, self.max_candidates or n_candidates)
        if batch_size > most:
            warnings.warn(
                f"batch_size={batch_size} is larger than max_candidates={most}; {most} is taken.",
                UserWarning,
                stacklevel=3,
            )
        return min(batch_size, most)

    def _fitted(self, clf, X, y, fit_clf):
        check_equal_missing_label(clf.missing_label, self.missing_label_)
        if fit_clf:
            clf = clone(clf).fit(X, y)
        net = getattr(clf, "neural_net_", None)
        if not is_skorch_net(net):
            unfitted = " that is not fitted; pass fit_clf=True" if hasattr(clf, "module") else ""
            raise TypeError(
                "clf must be a SkorchClassifier of scikit-activeml, fitted if fit_clf=False; got a "
                f"{type(clf).__name__}{unfitted}."
            )
        return clf

    def _outputs(self, net):
        if self.outputs != "auto":
            return self.outputs
        crossed = isinstance(net.criterion_, (nn.CrossEntropyLoss, nn.BCEWithLogitsLoss))
        return "probabilities" if crossed else "logits"

    @staticmethod
    def _answer(chosen, steps, rows, n_samples, return_utilities):
        """Indices and utilities in the caller's rows."""
        indices = chosen if rows is None else rows[chosen]
        if not return_utilities:
            return indices
        steps = np.repeat(steps, len(chosen), 0) if len(steps) < len(chosen) else steps.copy()
        for step in range(1, len(chosen)):
            steps[step, chosen[:step]] = np.nan
        if rows is None:
            return indices, steps
        utilities = np.full((len(chosen), n_samples), np.nan)
        utilities[:, rows] = steps
        return indices, utilities
