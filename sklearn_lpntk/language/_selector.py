"""Which training sequences to fine-tune on."""

import copy
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from ._objectives import DPO, find_objective
from ._selection import STRATEGIES, Candidates, n_tokens, rows_of


class LanguageSelector(BaseEstimator):
    """Ranks training sequences by what a step of fine-tuning on each does to a validation set.

    Parameters
    ----------
    model : nn.Module
        A causal language model, as in :func:`sequence_kernel`.
    strategy : str, default="gradient_similarity"
        What sequences are kept by:

        * ``"gradient_similarity"``: how far a step on the mean loss of the sequence lowers the mean
          loss of the validation set, to first order; signed.
        * ``"herding"``, ``"coverage"``: those that stand for all, by the strategies of
          :class:`~sklearn_lpntk.RedundancyPruner` on the kernel of sequences.
        * ``"redundant"``: those for which no other sequence stands in go last.
        * ``"loss"``, ``"length"``, ``"random"``: the highest mean loss, the most tokens, any.
    objective : {"sft", "dpo"} or callable, default="sft"
        As in :func:`sequence_kernel`.
    similarity : {"dot", "cosine"}, default="dot"
        For ``"gradient_similarity"``: the change itself, or what is left of it once gradients have
        norm 1: short and surprising sequences have large ones.
    optimizer : torch.optim.Adam or AdamW, default=None
        One that has taken steps on this model: a step is then Adam's, with each direction divided
        by the root of its second moment as it is (as in LESS [1]_, which has the first moment,
        too).
    parameters : str, sequence of str or callable, default=None
        Which trainable parameters count. None means all; with adapters, these.
    n_components : int, default=None
        Compare sketches of the gradients. None is exact.
    random_state : int, RandomState instance or None, default=None
        Draws the sketch, and ``"random"``.

    Attributes
    ----------
    scores_ : ndarray of shape (n_sequences,)
        The higher, the sooner a sequence is selected.
    order_ : ndarray of shape (n_sequences,)
        Indices by falling score.
    lengths_ : ndarray of shape (n_sequences,)
        Labelled tokens of each sequence.

    See Also
    --------
    sequence_kernel : What sequences are compared by.
    predict_log_proba : What a step does to single answers.

    Notes
    -----
    Of ``"gradient_similarity"``, one backward pass for each validation sequence and one
    Jacobian-vector product for each training sequence, with memory for two gradients;
    ``similarity="cosine"`` adds a backward pass for each. Other strategies take the kernel of the
    training sequences.

    References
    ----------
    .. [1] Xia et al., "LESS: Selecting Influential Data for Targeted Instruction Tuning".
       arXiv:2402.04333

    Examples
    --------
    >>> import torch
    >>> from sklearn_lpntk.language import LanguageSelector
    >>> class Bigram(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.embed, self.head = torch.nn.Embedding(9, 4), torch.nn.Linear(4, 9)
    ...     def forward(self, input_ids):
    ...         return self.head(self.embed(input_ids))
    >>> train = {"input_ids": [[1, 2, 3], [4, 5, 6], [7, 8, 1]]}
    >>> selector = LanguageSelector(Bigram()).fit(train, {"input_ids": [[4, 5, 6]]})
    >>> selector.select(1)
    array([1])
    """

    _parameter_constraints = {
        "model": "no_validation",
        "strategy": [StrOptions(set(STRATEGIES))],
        "objective": "no_validation",
        "similarity": [StrOptions({"dot", "cosine"})],
        "optimizer": "no_validation",
        "parameters": "no_validation",
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        model,
        *,
        strategy="gradient_similarity",
        objective="sft",
        similarity="dot",
        optimizer=None,
        parameters=None,
        n_components=None,
        random_state=None,
    ):
        self.model = model
        self.strategy = strategy
        self.objective = objective
        self.similarity = similarity
        self.optimizer = optimizer
        self.parameters = parameters
        self.n_components = n_components
        self.random_state = random_state

    def __sklearn_clone__(self):
        params = self.get_params(deep=False)
        # together: an optimizer's parameters are those of its model
        pair = params.pop("model"), params.pop("optimizer")
        model, optimizer = copy.deepcopy(pair)
        return type(self)(model, optimizer=optimizer, **params)

    def fit(self, train_batches, validation_batches=None):
        """Score the training sequences.

        Parameters
        ----------
        train_batches : batch, or iterable of batches
            Sequences to select from, as a ``DataLoader`` hands them out, in any form that
            :func:`sequence_kernel` takes. Padding is dropped.
        validation_batches : batch, or iterable of batches, default=None
            What fine-tuning is for; needed by ``"gradient_similarity"``.

        Returns
        -------
        self : LanguageSelector

        Raises
        ------
        TypeError, ValueError
            As :func:`sequence_kernel`; and if there is no validation set where one is needed.
        """
        self._validate_params()
        objective = find_objective(self.objective)
        if isinstance(objective, DPO):
            raise ValueError("Sequences are ranked one by one, and objective='dpo' is of pairs.")
        if self.optimizer is not None and (self.similarity, self.n_components) != ("dot", None):
            raise ValueError(
                "optimizer= needs similarity='dot' and n_components=None: norms and sketches are "
                "those of the gradients as they are."
            )
        train, validation = rows_of(train_batches, "train_batches"), None
        if validation_batches is not None:
            validation = rows_of(validation_batches, "validation_batches")
        rng = check_random_state(self.random_state)
        options = self.get_params(deep=False)
        candidates = Candidates(self.model, objective, train, validation, options, rng)
        self.lengths_ = n_tokens(train)
        self.scores_ = np.asarray(STRATEGIES[self.strategy](candidates), dtype=np.float64)
        self.order_ = np.argsort(-self.scores_, kind="stable")
        return self

    def select(self, n):
        """The sequences of the highest scores.

        Parameters
        ----------
        n : int or float
            How many, or their share, above 0 and at most 1.

        Returns
        -------
        indices : ndarray of shape (n,)
            By falling score.
        """
        check_is_fitted(self)
        most = len(self.scores_)
        whole = isinstance(n, Integral)
        share = isinstance(n, Real) and not whole and 0 < n <= 1
        if isinstance(n, bool) or not (share or (whole and 1 <= n <= most)):
            raise ValueError(
                f"n must be an int from 1 to {most}, the number of sequences, or a share above 0 "
                f"and at most 1; got {n!r}."
            )
        return self.order_[: max(1, round(n * most)) if share else n].copy()
