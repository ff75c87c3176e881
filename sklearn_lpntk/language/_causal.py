"""Causal language models: what they are called with, and what is refused."""

import inspect
from contextlib import ExitStack, contextmanager

import torch

from .._engine.evaluate import batches_of
from .._engine.inputs import checked_forward, logits_in
from .._engine.parameters import accepted, require_finite_state
from .._engine.session import borrowed
from .._runtime.turns import in_turn
from .._runtime.views import viewed
from .._skorch.nets import unwrapped
from ._batches import IGNORED, attended, columns
from ._objectives import log_proba

# what a batch may hold for the model; labels are ours
INPUTS = "input_ids", "attention_mask", "position_ids", "token_type_ids"
TRIED = 16  # tokens of the sequence by which a model is tried
LOGIT_BYTES = 2**27  # of one forward pass without gradients


class Scored:
    """A model called with a batch: a number for each token, (n, T), in place of logits."""

    def __init__(self, model, scalars):
        self.model, self.scalars = model, scalars

    def __call__(self, **batch):
        return self.scalars(logits_of(self.model, batch), batch)


def logits_of(model, batch):
    """Logits of shape (n, T, V) of a batch."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # of adapters
    known = inspect.signature(base.forward).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in known.values())
    given = {key: batch[key] for key in INPUTS if key in batch and (key in known or anything)}
    if "use_cache" in known:
        given["use_cache"] = False  # a cache hides what is stored in it
    if "input_ids" in given:
        return logits_in(model(**given))
    return logits_in(model(batch["input_ids"], **given))


def _likeliest(logits, batch):
    return torch.nn.functional.pad(logits[:, :-1].argmax(2), (1, 0))


class Causal:
    """A causal language model, to be used on batches (dict of name -> batch) in a ``with``.

    That tries it on them, and borrows it: what it is called for inside copies no values.

    Attributes
    ----------
    module : nn.Module
    vocabulary : int
        Number of logits V.
    """

    def __init__(self, model, batches, reference=None):
        if not isinstance(model, torch.nn.Module):
            raise TypeError(
                f"model must be a torch.nn.Module, as of transformers or peft; got "
                f"{type(model).__name__}."
            )
        _refuse_quantised(model)
        self.module = accepted(unwrapped(model))
        _require_one_device(self.module)
        _refuse_encoders(self.module)
        for name, batch in batches.items():
            _require_fitting(self.module, batch, name)
        self._batches, self._stack = batches, ExitStack()
        # both locked at once: one after the other, two threads might wait for each other
        is_model = isinstance(reference, torch.nn.Module)
        self._locked = torch.nn.ModuleList([self.module, *([unwrapped(reference)] * is_model)])

    def __enter__(self):
        with ExitStack() as stack:
            stack.enter_context(in_turn(self._locked))  # while another thread has it, all is frozen
            trainable = {name for name, p in self.module.named_parameters() if p.requires_grad}
            stack.enter_context(borrowed(self.module, trainable))
            require_finite_state(self.module)
            with torch.no_grad():
                self.vocabulary = _tried(self.module, next(iter(self._batches.values())))
            for name, batch in self._batches.items():
                _require_known_labels(batch, self.vocabulary, name)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info):
        return self._stack.__exit__(*exc_info)

    def view(self, scalars):
        """The model as a module from batches to ``scalars(logits, batch)``, of shape (n, T)."""
        return viewed(self.module, Scored, scalars)

    def rows_of_a_batch(self, batch):
        """Sequences in one forward pass."""
        return max(1, LOGIT_BYTES // (4 * batch["input_ids"].shape[1] * self.vocabulary))

    def log_proba(self, batch):
        """Log-probabilities of the labels, (n, T), zero where there is none."""
        return self.evaluated(log_proba, batch)

    def evaluated(self, scalars, batch):
        """``scalars(logits, batch)`` of all sequences, (n, T)."""
        view, rows = self.view(scalars), self.rows_of_a_batch(batch)
        with borrowed(view), torch.no_grad():
            found = [checked_forward(view, x) for _, x in batches_of(view, columns(batch), rows)]
        return torch.cat(found)

    def likeliest(self, batch):
        """The likeliest token at each position given those before it, (n, T); the first is 0."""
        view, rows = self.view(_likeliest), self.rows_of_a_batch(batch)
        with borrowed(view), torch.no_grad():
            found = [view(**x) for _, x in batches_of(view, columns(batch), rows)]
        return torch.cat(found)

    def reference_log_proba(self, reference, batch):
        """The same by a reference model, which must know the same tokens."""
        with ExitStack() as stack:
            try:
                other = stack.enter_context(Causal(reference, {"batch": batch}))
            except ValueError as error:
                raise ValueError(f"reference: {error}") from error
            if other.vocabulary != self.vocabulary:
                raise ValueError(
                    f"The reference model has {other.vocabulary} logits and the model "
                    f"{self.vocabulary}: its log-probabilities are of other tokens. Pass the model "
                    "that training began from."
                )
            return other.log_proba(batch)

    def base_log_proba(self, batch):
        """The same by the model that adapters were added to, where there are some."""
        if not hasattr(self.module, "disable_adapter"):
            raise ValueError(
                "objective='dpo' needs the reference model: pass reference=, the model that "
                "training began from or its log-probabilities (n, T), or a batch with "
                "ref_chosen_logps and ref_rejected_logps."
            )
        merged = [n for n, m in self.module.named_modules() if getattr(m, "merged", False) is True]
        if merged:
            raise ValueError(
                f"The adapters are merged into the weights of {merged[:3]}, so that the model that "
                "they were added to is not at hand: call unmerge_adapter(), or pass reference=."
            )
        # which changes flags of the parameters: what is borrowed comes back, one thread at a time
        with borrowed(self.module), self.module.disable_adapter():
            return self.log_proba(batch)


# -- what is refused ------------------------------------------------------------------------


def _refuse_quantised(model):
    found = [
        f"its layer {name!r} is a {type(child).__name__}"
        for name, child in model.named_modules()
        if type(child).__module__.startswith(("torch.ao.nn.quantized", "bitsandbytes"))
    ]
    integers = [(name, p) for name, p in model.named_parameters() if not p.is_floating_point()]
    found += [f"its parameter {name!r} is {p.dtype}" for name, p in integers]
    if getattr(model, "is_quantized", False) or getattr(model, "hf_quantizer", None) is not None:
        found.append("its is_quantized or hf_quantizer says so")
    if found:
        raise ValueError(
            f"The model is quantised ({found[0]}): its gradients are not those of its weights. "
            "Load it in float32, or call its dequantize()."
        )


def _require_one_device(model):
    devices = {str(p.device) for p in model.parameters()}
    if len(devices) > 1:
        raise ValueError(
            f"The model's parameters are on several devices {sorted(devices)}; move it to one, "
            "model.to(device), or load it without device_map."
        )


def _refuse_encoders(model):
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise ValueError(
            f"{type(model).__name__} is an encoder-decoder; the model must predict each token of "
            "input_ids from those before it (transformers: AutoModelForCausalLM)."
        )


def _require_fitting(model, batch, name):
    """Refuse sequences that are too long, and tokens without a row in the embedding."""
    length, config = batch["input_ids"].shape[1], getattr(model, "config", None)
    positions = getattr(config, "max_position_embeddings", None) or length
    if length > positions:
        raise ValueError(
            f"{name} has sequences of {length} tokens and the model {positions} positions: "
            "truncate them."
        )
    known = getattr(config, "vocab_size", None)
    low, high = (int(x) for x in batch["input_ids"].aminmax())
    if low < 0 or (known is not None and high >= known):
        raise ValueError(
            f"{name} has token ids from {low} to {high}, and the model knows "
            f"{known if known is not None else 'none below 0'}: it belongs to another tokenizer."
        )


def _require_known_labels(batch, vocabulary, name):
    labels = batch["labels"][batch["labels"] != IGNORED]
    if int(labels.min()) < 0 or int(labels.max()) >= vocabulary:
        raise ValueError(
            f"{name} has labels from {int(labels.min())} to {int(labels.max())}, and the model has "
            f"{vocabulary} logits; labels are token ids, or {IGNORED} where there is no loss."
        )


def _tried(model, batch):
    """Number of logits, of a model whose logits depend on no later token."""
    mask = attended(batch)
    longest = int(mask.sum(1).argmax())
    row = {k: v[longest : longest + 1] for k, v in batch.items() if k in INPUTS}
    kept = mask[longest].nonzero()[:, 0][:TRIED]
    if not len(kept):
        raise ValueError("All sequences are padding: their attention_mask is 0 everywhere.")
    shape = row["input_ids"].shape
    few = {k: v[:, kept.to(v.device)] for k, v in row.items() if v.shape == shape}
    few = {k: torch.cat([v, v]) for k, v in few.items()}
    few["input_ids"][1, -1] = int(few["input_ids"][0, -1] == 0)
    device = next(model.parameters()).device
    few = {k: v.to(device) for k, v in few.items()}
    with _explained(few):
        logits = logits_of(model, few)
    shape = tuple(few["input_ids"].shape)
    if not isinstance(logits, torch.Tensor) or logits.ndim != 3 or logits.shape[:2] != shape:
        given = getattr(logits, "shape", type(logits).__name__)
        raise ValueError(
            f"The model must return logits of shape (n, T, V); for input_ids of shape {shape} "
            f"{type(model).__name__} returned {given}. Load a language model with its head "
            "(transformers: AutoModelForCausalLM)."
        )
    before, changed = logits[0, :-1], logits[1, :-1]
    if before.numel() and (before - changed).abs().max() > 1e-4 * before.abs().max():
        raise ValueError(
            f"The logits of {type(model).__name__} depend on later tokens (an encoder?); the model "
            "must predict each token from those before it (transformers: AutoModelForCausalLM)."
        )
    return logits.shape[2]


@contextmanager
def _explained(x):
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        shapes = ", ".join(f"{k}: {tuple(v.shape)}" for k, v in x.items())
        raise ValueError(
            f"The model failed on {shapes}; it must take input_ids (n, T) and return logits (n, T, "
            f"V). Token ids beyond its vocabulary? Original error: {error}"
        ) from error
