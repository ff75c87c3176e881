"""Learning dynamics inside of trainers of transformers and trl: callbacks, and GRPO by tokens.

Needs transformers, and `NTHRTrainerMixin` trl: ``pip install 'sklearn-lpntk[language]'``.
"""

import inspect
from contextlib import contextmanager
from numbers import Integral

import numpy as np
import torch
from sklearn.utils import Bunch
from sklearn.utils._optional_dependencies import check_pandas_support

from .._engine.directional import DirectionalDerivative
from .._engine.session import borrowed
from .._skorch.nets import unwrapped
from ._hidden_rewards import nthr_scores, spared
from ._probes import ARGMAX, LIKELIEST, Probes
from ._steps import predicted_along

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError(
        "sklearn_lpntk.language.trl needs transformers and trl: pip install "
        "'sklearn-lpntk[language]'."
    ) from error

__all__ = ["NTHRTrainerMixin", "ResponseProbe", "UpdateRecorder"]


class ResponseProbe(TrainerCallback):
    """Log-probabilities of some answers while a language model is fine-tuned.

    For trainers of transformers and trl (``SFTTrainer``, ``DPOTrainer``, ``GRPOTrainer``); the
    probing set of [1]_: chosen answers, their rephrases, rejected ones, answers to other prompts.

    Parameters
    ----------
    probes : dict of str to batch, or batch
        Answers by name, in any form that
        :func:`~sklearn_lpntk.language.sequence_kernel` takes; their labelled tokens count.
        Padding is dropped.
    every : int, default=10
        Optimiser steps from one record to the next; the first is before training.
    argmax_of : str or None, default="chosen"
        The answers in whose contexts the tokens are watched, too, that were likeliest at the
        start, and those that are so by now: where a squeezed distribution goes. Left out where
        ``probes`` has no such name.

    Attributes
    ----------
    records : list of Bunch
        Of each record, ``step`` and ``log_proba``, a dict of name to an ndarray of shape
        (n_answers,): sums over an answer's tokens (nats). The fixed tokens are called
        ``"argmax"``, those of the record ``"likeliest"``.

    See Also
    --------
    UpdateRecorder : What single steps do, beside what was predicted.
    sklearn_lpntk.inspection.ResponseDynamicsDisplay : Draws the records.

    References
    ----------
    .. [1] Ren and Sutherland, "Learning Dynamics of LLM Finetuning". arXiv:2407.10490
    """

    def __init__(self, probes, *, every=10, argmax_of="chosen"):
        self.probes, self.every, self.argmax_of = Probes(probes), _period(every), argmax_of
        self.records, self._latest, self._given = [], {}, self.probes

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """Fix the likeliest tokens, and record; a training that does not go on begins anew."""
        if state.global_step == 0:
            self.records, self.probes = [], self._given
        if self.argmax_of in self.probes.names and ARGMAX not in self.probes.names:
            self.probes = self.probes.with_argmax(unwrapped(model), self.argmax_of)
        self._record(state, model)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        """Record, if it is time."""
        if state.global_step % self.every == 0:
            self._record(state, model)

    def on_train_end(self, args, state, control, model=None, **kwargs):
        """Record once more."""
        self._record(state, model)

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Add means over the answers to what the trainer logs, as ``probe/<name>``."""
        _add_to_logs(state, logs, self._latest)

    def _record(self, state, model):
        if not state.is_world_process_zero:
            return
        if self.records and self.records[-1].step == state.global_step:
            return
        found = self.probes.record(unwrapped(model))
        self.records.append(Bunch(step=state.global_step, log_proba=found))
        self._latest = {f"probe/{name}": float(v.mean()) for name, v in found.items()}

    def to_frame(self):
        """All records as a frame.

        Returns
        -------
        frame : pandas.DataFrame
            Columns ``step, response, sequence, log_proba, n_tokens``.
        """
        pd = check_pandas_support("ResponseProbe.to_frame")
        lengths = self.probes.by_name(self.probes.lengths)
        lengths.setdefault(LIKELIEST, lengths.get(ARGMAX))
        rows = [
            (record.step, name, i, value, lengths[name][i])
            for record in self.records
            for name, values in record.log_proba.items()
            for i, value in enumerate(values)
        ]
        return pd.DataFrame(rows, columns=["step", "response", "sequence", "log_proba", "n_tokens"])


class UpdateRecorder(TrainerCallback):
    """What steps of training do to some answers, predicted before and measured after.

    At every k-th optimiser step, the change of the answers' log-probabilities to first order, along
    the change of the parameters that the optimiser makes, with momentum and Adam, and what it came
    to be.

    Parameters
    ----------
    probes : dict of str to batch, or batch
        As in `ResponseProbe`.
    every : int, default=10
        Optimiser steps from one that is watched to the next.

    Attributes
    ----------
    records : list of Bunch
        Of each step, ``step`` (how many were taken before it), and ``predicted, actual,
        log_proba``: dicts of name to ndarrays of shape (n_answers,), sums over an answer's tokens
        (nats); ``log_proba`` before the step.

    See Also
    --------
    ResponseProbe : The whole of training, without predictions.
    sklearn_lpntk.language.predict_log_proba : The prediction.

    Notes
    -----
    A step that is watched takes one more forward pass and one Jacobian-vector product on the
    probes, and memory for three copies of the trainable parameters.
    """

    def __init__(self, probes, *, every=10):
        self.probes, self.every = Probes(probes), _period(every)
        self.records, self._before, self._latest = [], None, {}
        self._derivative = DirectionalDerivative()

    def on_train_begin(self, args, state, control, **kwargs):
        """Begin anew, unless an earlier training goes on."""
        self._derivative = DirectionalDerivative()
        if state.global_step == 0:
            self.records, self._latest = [], {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        """Keep the parameters as they are, if the step is to be watched."""
        self._before = None
        if state.is_world_process_zero and state.global_step % self.every == 0:
            trainable = _trainable(unwrapped(model))
            self._before = {name: p.detach().clone() for name, p in trainable.items()}

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        """Predict the step from where it began, and measure it."""
        if self._before is None:
            return
        module, before = unwrapped(model), self._before
        self._before, trainable = None, _trainable(module)
        change = {name: p.detach() - before[name] for name, p in trainable.items()}
        with borrowed(module, trainable):
            after = self.probes.log_proba(module)
            with _set_to(trainable, before):
                found = predicted_along(module, self.probes.batch, change, self._derivative)
        start = np.nansum(found.log_proba, axis=1)
        values = {
            "predicted": found.delta_response,
            "actual": after - start,
            "log_proba": start,
        }
        values = {key: self.probes.by_name(value) for key, value in values.items()}
        self.records.append(Bunch(step=state.global_step, **values))
        self._latest = {f"update/{key}": value for key, value in self.summary().items()}

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Add the summary to what the trainer logs, as ``update/<key>``."""
        _add_to_logs(state, logs, self._latest)

    def summary(self):
        """How well all steps so far were predicted.

        Returns
        -------
        summary : Bunch
            ``correlation`` of predicted and actual changes (NaN for fewer than two), and ``signs``,
            the share of changes whose sign was predicted.
        """
        pairs = [
            np.concatenate([v for r in self.records for v in r[key].values()] or [np.empty(0)])
            for key in ("predicted", "actual")
        ]
        varied = len(pairs[0]) > 1 and all(np.ptp(values) > 0 for values in pairs)
        correlation = float(np.corrcoef(*pairs)[0, 1]) if varied else float("nan")
        signs = float(np.mean(np.sign(pairs[0]) == np.sign(pairs[1]))) if len(pairs[0]) else np.nan
        return Bunch(correlation=correlation, signs=signs)

    def to_frame(self):
        """All records as a frame.

        Returns
        -------
        frame : pandas.DataFrame
            Columns ``step, response, sequence, predicted, actual, log_proba``.
        """
        pd = check_pandas_support("UpdateRecorder.to_frame")
        rows = [
            (r.step, name, i, r.predicted[name][i], r.actual[name][i], r.log_proba[name][i])
            for r in self.records
            for name in r.predicted
            for i in range(len(r.predicted[name]))
        ]
        columns = ["step", "response", "sequence", "predicted", "actual", "log_proba"]
        return pd.DataFrame(rows, columns=columns)


class NTHRTrainerMixin:
    """GRPO that punishes those tokens less that hold up the right answers.

    Put it before trl's trainer: ``class Trainer(NTHRTrainerMixin, GRPOTrainer): pass``. Advantages
    become those of :func:`~sklearn_lpntk.language.nthr_advantages`, token by token; the share of
    tokens of wrong answers that are spared is logged as ``nthr/selected``.

    Attributes
    ----------
    nthr_beta : float
        Of the threshold, 1 unless set.
    nthr_eta : float or "balanced"
        What advantages of selected tokens are multiplied by, ``"balanced"`` unless set.
    nthr_vocabulary : {"full", "group"}
        ``"full"`` unless set.

    See Also
    --------
    sklearn_lpntk.language.nthr_scores : What tokens are selected by.

    Notes
    -----
    One more forward pass without gradients, a group at a time. An answer is right where its
    advantage is above 0. Groups must not be spread over processes.

    References
    ----------
    .. [1] Deng et al., "On the Effect of Negative Gradient in Group Relative Deep Reinforcement
       Optimization". arXiv:2505.18830
    """

    nthr_beta, nthr_eta, nthr_vocabulary = 1.0, "balanced", "full"

    def _generate_and_score_completions(self, inputs):
        out = super()._generate_and_score_completions(inputs)
        mode = "train" if self.model.training else "eval"
        size = self.num_generations if mode == "train" else self.num_generations_eval
        n = len(out["completion_ids"])
        if n % size:
            raise ValueError(
                f"This process has {n} answers in groups of {size}, so that a group is spread over "
                "processes: make the batch of a process a multiple of num_generations."
            )
        groups = [self._nthr_group(out, slice(i, i + size)) for i in range(0, n, size)]
        out["advantages"] = torch.cat([advantages for advantages, _ in groups])
        shares = [share for _, share in groups if share is not None]
        self._metrics[mode]["nthr/selected"].append(float(np.mean(shares)) if shares else 0.0)
        return out

    def _nthr_group(self, out, rows):
        """Advantages of a group's tokens, and the share of wrong answers' tokens selected."""
        ids, attended = out["completion_ids"][rows], out["completion_mask"][rows]
        # what tools wrote is not the model's
        mask = attended * out["tool_mask"][rows] if "tool_mask" in out else attended
        advantages = out["advantages"][rows]
        spread = advantages.unsqueeze(1).expand(ids.shape) if advantages.ndim == 1 else advantages
        own = advantages if advantages.ndim == 1 else (advantages * mask).sum(1)
        own = torch.where(own.abs() < 1e-3, 0, own)  # rounding, where all rewards are alike
        if not (own > 0).any():
            return spread.clone(), None
        model = self.accelerator.unwrap_model(self.model)
        batch = {
            "input_ids": torch.cat([out["prompt_ids"][rows], ids], 1),
            "attention_mask": torch.cat([out["prompt_mask"][rows], attended], 1),
        }
        given = _last_hidden(model, batch, ids.shape[1], self.temperature)
        options = {"beta": self.nthr_beta, "vocabulary": self.nthr_vocabulary}
        found = nthr_scores(*given, ids, mask, own, **options)
        scored = ~found.scores.isnan()
        if not scored.any():
            return spread.clone(), None
        scaled = spared(spread, found.selected, own, self.nthr_eta)
        return scaled, float(found.selected[scored].float().mean())


def _last_hidden(model, batch, length, temperature):
    """Last hidden states and logits at the positions that predict the last tokens."""
    known = inspect.signature(model.forward).parameters
    few = {"logits_to_keep": length + 1} if "logits_to_keep" in known else {}
    training = {module: module.training for module in model.modules()}
    model.eval()  # what dropout draws is no part of a token's score
    try:
        with torch.no_grad():
            found = model(**batch, output_hidden_states=True, use_cache=False, **few)
    finally:
        for module, flag in training.items():
            module.training = flag
    at = slice(-length - 1, -1)
    return found.hidden_states[-1][:, at].float(), found.logits[:, at].float() / temperature


def _period(every):
    if not isinstance(every, Integral) or isinstance(every, bool) or every < 1:
        raise ValueError(f"every must be an int of at least 1; got {every!r}.")
    return every


def _trainable(module):
    found = {name: p for name, p in module.named_parameters() if p.requires_grad}
    sharded = [name for name, p in found.items() if not p.numel()]
    if sharded:
        raise ValueError(
            f"The parameters {sharded[:3]} are empty here: they are sharded over processes, and a "
            "change of them can't be followed."
        )
    return found


@contextmanager
def _set_to(parameters, values):
    """The parameters with other values."""
    after = {name: p.data for name, p in parameters.items()}
    try:
        for name, p in parameters.items():
            p.data = values[name]
        yield
    finally:
        for name, p in parameters.items():
            p.data = after[name]


def _add_to_logs(state, logs, values):
    if logs is not None:
        logs.update(values)
    if state.log_history:
        state.log_history[-1].update(values)
