"""The kernel of token sequences: what a step on one does to the loss of another."""

from .._engine.objectives import Objective
from .._features import extract, make_extractor, operator_of, sketch_seed, store_path
from ._batches import as_batch, columns
from ._causal import Causal
from ._objectives import find_objective

SUM = Objective("sum of a sequence", lambda losses, y: losses.sum(1, keepdim=True), any_shape=True)


def sequence_kernel(
    model,
    batch,
    batch2=None,
    *,
    objective="sft",
    parameters=None,
    n_components=None,
    store=None,
    reference=None,
    batch_size="auto",
    random_state=None,
):
    """Tangent kernel of token sequences, as a lazy matrix.

    The feature of a sequence is the gradient of the *sum* of its labelled tokens' losses; an entry
    is the inner product of two: a step of rate ``eta`` on one sequence lowers the summed loss of
    the other by ``eta`` times it, to first order. No gradient of the size of the model is kept,
    where the inputs and output gradients of its layers take less.

    Parameters
    ----------
    model : nn.Module
        A causal language model: of transformers, with adapters of peft (then these alone count), or
        any module that takes ``input_ids`` (n, T), with ``attention_mask`` if its forward knows it,
        and returns logits (n, T, V). It is used in evaluation mode and comes back as it was.
    batch : mapping of tensors or arrays, or list of mappings
        As a collator of transformers or trl gives it: ``input_ids`` of shape (n, T),
        ``attention_mask``, and ``labels`` (-100 where there is no loss) or ``completion_mask``;
        padded on either side. Without labels, all tokens count that another one precedes. A list
        has one mapping a sequence.
    batch2 : like batch, default=None
        The sequences of the columns; None means those of ``batch``, which costs half.
    objective : {"sft", "dpo"}, DPO or callable, default="sft"
        ``"sft"``: the negative log-probability of each labelled token. ``"dpo"``: what each token
        adds to the gradient of its pair's loss, with the chosen answers in the first half of a
        batch and the rejected ones in the second; ``DPO(beta=...)`` is that of another rate. A
        callable gets logits (n, T, V) and the batch, a dict of tensors, and returns a loss for
        each token, (n, T), aligned with the labels.
    parameters : str, sequence of str or callable, default=None
        Which trainable parameters count: name prefixes or a predicate. None means all.
    n_components, store, batch_size, random_state
        As in :func:`~sklearn_lpntk.kernels.empirical_ntk`.
    reference : nn.Module or array of shape (n, T), default=None
        For ``"dpo"``: the reference model, or its log-probabilities of the labels. None takes
        ``ref_chosen_logps`` and ``ref_rejected_logps`` of the batch, or the model without its
        adapters. With ``batch2`` it must be the model.

    Returns
    -------
    operator : KernelOperator
        Of shape (n, n_2).

    Raises
    ------
    TypeError
        If ``model`` is no module, or ``batch`` no batch.
    ValueError
        If no token is labelled, sequences are longer than the model's positions, tokens or labels
        are not in its vocabulary, or the model is an encoder, quantised, or on several devices.

    See Also
    --------
    token_influence : Tokens on tokens.
    predict_log_proba : What a step does to answers.

    References
    ----------
    .. [1] Ren and Sutherland, "Learning Dynamics of LLM Finetuning". arXiv:2407.10490

    Examples
    --------
    >>> import torch
    >>> from sklearn_lpntk.language import sequence_kernel
    >>> class Bigram(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.embed, self.head = torch.nn.Embedding(9, 4), torch.nn.Linear(4, 9)
    ...     def forward(self, input_ids):
    ...         return self.head(self.embed(input_ids))
    >>> batch = {"input_ids": torch.randint(9, (5, 6))}
    >>> sequence_kernel(Bigram(), batch).shape
    (5, 5)
    """
    objective = find_objective(objective)
    batches = {"batch": as_batch(batch)}
    if batch2 is not None:
        batches["batch2"] = as_batch(batch2, "batch2")
    if store is not None and random_state is None:
        random_state = 0
    seed = sketch_seed(n_components, random_state)
    found = []
    with Causal(model, batches, reference) as causal:
        extractor = _extractor(causal.view(objective), parameters, batch_size)
        for name, side in zip(batches, ("X", "X2")):
            x = columns(objective.prepared(causal, batches[name], reference))
            options = {
                "store": None if store is None else store_path(store, side),
                "names": (name, "y"),
            }
            found.append(extract(extractor, x, None, n_components, seed, **options))
    return operator_of(*found)


def _extractor(view, parameters, batch_size):
    class Given:
        module = view

    return make_extractor(Given, kernel=SUM, parameters=parameters, batch_size=batch_size)
