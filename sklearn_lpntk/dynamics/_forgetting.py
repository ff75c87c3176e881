"""Forgetting events predicted one step ahead."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from sklearn.metrics import precision_recall_fscore_support
from sklearn.utils import check_random_state

from .._engine.cotangents import require_columns
from .._engine.directional import DirectionalDerivative, mean_gradient
from .._engine.evaluate import require_sane
from .._engine.inputs import checked_forward, take, to_batch
from .._engine.parameters import accepted, select_parameters
from .._engine.session import borrowed
from .._samples.columns import columns_of
from .._skorch.networks import Network
from ._update import LOSS_GRADIENT
from ._validation import blamed, require_integer, require_learning_rate


@dataclass(frozen=True)
class ForgettingPrediction:
    """Predicted and actual forgetting events of a stretch of training.

    A candidate is a sample of the previous batch that is right before the step.

    Attributes
    ----------
    iterations, samples : ndarray of shape (n_candidates,)
        The step (from 0), and the row of X.
    margins : ndarray of shape (n_candidates,)
        Logit of the label minus the largest other one, before the step; above or equal to 0.
    predicted, actual : ndarray of shape (n_candidates,), bool
        Whether the step makes it wrong: by the first-order prediction, and in fact.
    state_dict : dict of str to tensor
        Parameters and buffers of the network after the last step.
    precision, recall, f1 : float
        From the counts of all candidates together; nan where they are undefined.
    """

    iterations: np.ndarray
    samples: np.ndarray
    margins: np.ndarray
    predicted: np.ndarray
    actual: np.ndarray
    state_dict: dict = field(repr=False)

    @property
    def precision(self):
        return self._scores[0]

    @property
    def recall(self):
        return self._scores[1]

    @property
    def f1(self):
        return self._scores[2]

    @property
    def _scores(self):
        scores = precision_recall_fscore_support(
            self.actual, self.predicted, labels=[True], average="micro", zero_division=np.nan
        )
        return tuple(float(score) for score in scores[:3])


def predict_forgetting(
    net,
    X,
    y,
    *,
    learning_rate,
    n_iterations=30,
    batch_size=128,
    batches=None,
    training_mode=False,
    random_state=None,
):
    """Predict which samples the next training step makes the network forget.

    Algorithm 2 of [1]_: from the network's weights, plain gradient descent goes on batch by
    batch. Of each step, the change of the logits of the previous batch's samples is predicted to
    first order before it is taken; a sample that is right is predicted to be forgotten where its
    predicted label is then another. Then the step is taken, and the samples are looked at again.

    Parameters
    ----------
    net : nn.Module or fitted skorch net
        The network, in the middle of its training; it must return logits. It comes back exactly
        as it was: the weights after the last step are in ``state_dict``.
    X : array or tensor of shape (n_samples, ...), or dict of them
        The training samples.
    y : array of shape (n_samples,)
        Their labels, logit columns 0..K-1.
    learning_rate : float
        Of plain gradient descent, above 0. First order means small: 5e-4 in the paper.
    n_iterations : int, default=30
        Number of steps; not used with ``batches``.
    batch_size : int, default=128
        Samples in a batch; not used with ``batches``.
    batches : sequence of arrays of int, default=None
        The rows of X in each batch. Each but the first is a step, whose candidates are the rows
        of the batch before it. None draws them epoch by epoch, each in a new order.
    training_mode : bool, default=False
        Take the real steps in training mode, of all layers (batch statistics of BatchNorm,
        dropout). The predicted ones, and all predictions of labels, are in evaluation mode all
        the same.
    random_state : int, RandomState instance or None, default=None
        Draws the batches.

    Returns
    -------
    prediction : ForgettingPrediction
        With ``predicted`` and ``actual`` for every candidate, and ``precision, recall, f1``.

    Raises
    ------
    TypeError
        If ``net`` is neither a module nor a skorch net.
    NotFittedError
        If the skorch net is not fitted.
    ValueError
        If the learning rate is not above 0, labels are no logit columns, or a batch is empty or
        names rows that X does not have.

    See Also
    --------
    predict_update : The prediction for one step, in full.
    ForgettingEvents : Counts the events of an ordinary fit.

    References
    ----------
    .. [1] "lpNTK: Better Generalisation with Less Data via Sample Interaction During
       Learning", section 3.3 and appendix D.3. arXiv:2401.08808
    .. [2] Toneva et al., "An Empirical Study of Example Forgetting during Deep Neural Network
       Learning", 2018. arXiv:1812.05159

    Examples
    --------
    >>> import torch
    >>> from sklearn_lpntk.dynamics import predict_forgetting
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Linear(4, 3)
    >>> X, y = torch.randn(300, 4), torch.arange(300) % 3
    >>> found = predict_forgetting(net, X, y, learning_rate=0.05, n_iterations=100, random_state=0)
    >>> found.actual.sum() > 10, found.f1 > 0.9
    (np.True_, True)
    """
    network = Network(net)
    module = accepted(network.module)
    require_learning_rate(learning_rate)
    X = network.inputs(X)
    y = torch.as_tensor(columns_of(X, y))
    if batches is None:
        batches = _drawn(len(y), n_iterations, batch_size, random_state)
    else:
        batches = _checked(batches, len(y))
    names = select_parameters(module, None)
    with borrowed(module), blamed("X, y"):
        require_sane(module, X)
        steps = _Steps(module, names, X, y, learning_rate, training_mode)
        found = [steps(k, *pair) for k, pair in enumerate(pairwise(batches))]
        state = {key: value.detach().clone() for key, value in module.state_dict().items()}
    return ForgettingPrediction(*map(np.concatenate, zip(*found)), state_dict=state)


class _Steps:
    """Plain gradient descent on a borrowed module that says beforehand what it will do."""

    def __init__(self, module, names, X, y, learning_rate, training_mode):
        self.module, self.X, self.y = module, X, y
        self.learning_rate, self.training_mode = learning_rate, training_mode
        parameters = dict(module.named_parameters())
        self.parameters = {name: parameters[name] for name in names}
        self.derivative = DirectionalDerivative(module)
        first = next(iter(self.parameters.values()))
        self.dtype, self.device = first.dtype, first.device

    def __call__(self, iteration, previous, following):
        """The candidates of one step, which is taken: the fields of ForgettingPrediction."""
        x = to_batch(self.X, previous, self.dtype, self.device)
        y = self.y[previous].to(self.device)
        direction = self._direction(following)
        logits, change = self.derivative(x, direction)
        require_columns(self.y, logits.shape[1])
        right = label_margin(logits, y) >= 0
        predicted = label_margin(logits + change, y) < 0
        self._step(following, direction)
        with torch.no_grad():
            actual = label_margin(checked_forward(self.module, x), y) < 0
        margins = label_margin(logits, y)[right]
        fields = margins, predicted[right], actual[right]
        samples = previous[right.cpu().numpy()]
        return np.full(len(samples), iteration), samples, *(f.cpu().numpy() for f in fields)

    def _direction(self, rows):
        X, y = take(self.X, rows), self.y[rows]
        whole = {"batch_size": len(y)}  # batch normalisation in training mode must see all of it
        gradient = mean_gradient(self.module, self.parameters, X, y, LOSS_GRADIENT, **whole)
        return {name: -self.learning_rate * g for name, g in gradient.items()}

    def _step(self, rows, direction):
        if self.training_mode:
            self.module.train()
            try:
                direction = self._direction(rows)
            finally:
                self.module.eval()
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.add_(direction[name])


def label_margin(logits, y):
    """Logit of the label minus the largest other one; negative where the label is not predicted.

    Of equal logits the first is predicted, as by ``argmax``.
    """
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    own = logits.gather(1, y[:, None])[:, 0]
    others = logits.scatter(1, y[:, None], -torch.inf)
    margin = own - others.amax(1)
    beaten = (margin == 0) & (logits.argmax(1) != y)
    return torch.where(beaten, -torch.finfo(margin.dtype).tiny, margin)


def _drawn(n, n_iterations, batch_size, random_state):
    """Rows of one batch more than there are steps, epoch after epoch."""
    require_integer("n_iterations", n_iterations)
    require_integer("batch_size", batch_size)
    rng, size = check_random_state(random_state), min(batch_size, n)
    n_epochs = -(-(n_iterations + 1) // (n // size))
    epochs = [rng.permutation(n)[: n // size * size].reshape(-1, size) for _ in range(n_epochs)]
    return np.concatenate(epochs)[: n_iterations + 1]


def _checked(batches, n):
    batches = [np.asarray(rows) for rows in batches] if np.iterable(batches) else [batches]
    if len(batches) < 2:
        raise ValueError(
            f"batches must be a sequence of two batches or more; got {len(batches)}: "
            f"{batches!r:.60}."
        )
    for rows in batches:
        integers = rows.ndim == 1 and len(rows) and rows.dtype.kind in "iu"
        if not integers or rows.min() < 0 or rows.max() >= n:
            raise ValueError(
                f"Each of batches must be a non-empty 1-d array of rows of X, from 0 to {n - 1}; "
                f"got {rows!r:.80}."
            )
    return batches
