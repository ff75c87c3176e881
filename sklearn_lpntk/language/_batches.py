"""Batches of token sequences as people have them, in one form."""

from collections.abc import Mapping

import numpy as np
import torch

IGNORED = -100  # a label without a loss, as in torch and in transformers
PADDING = {"input_ids": 0, "attention_mask": 0, "labels": IGNORED, "completion_mask": 0}
FORMS = (
    "a mapping with input_ids of shape (n, T) and, if there are, attention_mask and labels (-100 "
    "where there is no loss) or completion_mask; or a list or a data set of such mappings, one a "
    "sequence"
)


def as_batch(batch, name="batch"):
    """A batch as a dict of tensors: ``input_ids, attention_mask, labels``, all of shape (n, T).

    What else it has stays, where that is a tensor. Labels follow from ``completion_mask``, or are
    all tokens that another one precedes. They are aligned with the tokens; the first of a
    sequence is predicted by nothing, and has none.

    Raises
    ------
    TypeError
        If it is no batch.
    ValueError
        If shapes don't fit, or no token has a label.
    """
    if are_rows(batch):
        batch = _collated([batch[i] for i in range(len(batch))], name)
    if not hasattr(batch, "keys"):  # BatchEncoding is a UserDict
        raise TypeError(f"{name} must be {FORMS}; got {type(batch).__name__}.")
    given = {key: _tensor(value, f"{name}[{key!r}]") for key, value in dict(batch).items()}
    given = {key: value for key, value in given.items() if value is not None}
    if "input_ids" not in given and {"prompt_ids", "completion_ids"} <= given.keys():
        given = _of_completions(given)
    ids = given.get("input_ids")
    if ids is None or ids.ndim != 2 or ids.is_floating_point() or 0 in ids.shape:
        what = f"the keys {list(given)}" if ids is None else f"{ids.dtype} of {tuple(ids.shape)}"
        raise ValueError(f"{name} must be {FORMS}; got {what}.")
    given["labels"] = _labels(given).clone()
    given["labels"][:, 0] = IGNORED
    given.pop("completion_mask", None)
    for key in ("position_ids", "token_type_ids"):  # there may be one for all sequences
        if key in given and given[key].ndim == 2 and len(given[key]) == 1:
            given[key] = given[key].expand(len(ids), -1)
    _require_shapes(given, name)
    if not (given["labels"] != IGNORED).any():
        raise ValueError(
            f"{name} has no labelled token: all labels are {IGNORED} (or only those of first "
            "tokens are not, which nothing predicts). Label the tokens whose loss counts."
        )
    return given


def are_rows(batch):
    """Whether it is a list of something, or a data set of mappings."""
    if isinstance(batch, (list, tuple)):
        return True
    indexed = hasattr(batch, "__getitem__") and hasattr(batch, "__len__") and len(batch)
    return bool(indexed) and not hasattr(batch, "keys") and hasattr(batch[0], "keys")


def _tensor(value, name):
    """A tensor, or None for what is none: texts, flags."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        plain = value.is_floating_point() or value.dtype == torch.bool or value.is_complex()
        return value if plain else value.long()
    try:
        value = np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{name} holds sequences of several lengths: pad them to one, or pass a list of "
            "mappings, which is padded here."
        ) from error
    if not value.ndim or value.dtype.kind not in "iufb":
        return None
    return torch.from_numpy(value.astype(np.int64) if value.dtype.kind in "iu" else np.array(value))


def _collated(rows, name):
    """One mapping of padded tensors, on the right, of a list of mappings."""
    if not rows or not all(isinstance(row, Mapping) or hasattr(row, "keys") for row in rows):
        kinds = sorted({type(row).__name__ for row in rows})
        raise TypeError(f"{name} must be {FORMS}; got a list of {kinds or 'nothing'}.")
    rows, out = [dict(row) for row in rows], {}
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ValueError(f"The mappings in {name} have different keys; got {_key_sets(rows)}.")
    for key in rows[0]:
        try:
            parts = [_tensor(row[key], f"{name}[{i}][{key!r}]") for i, row in enumerate(rows)]
        except ValueError:
            if key in PADDING:
                raise
            continue  # nothing of ours
        if any(part is None for part in parts):
            continue
        parts = [part[0] if part.ndim == 2 and len(part) == 1 else part for part in parts]
        if any(part.ndim != 1 for part in parts):
            raise ValueError(f"{key!r} of each mapping in {name} must be one sequence.")
        padding = PADDING.get(key, 0)
        out[key] = torch.nn.utils.rnn.pad_sequence(parts, True, padding)
    lengths = {np.size(row["input_ids"]) for row in rows} if "input_ids" in out else ()
    if len(lengths) > 1 and "attention_mask" not in out:
        ones = [torch.ones(len(torch.as_tensor(row["input_ids"]).reshape(-1))) for row in rows]
        out["attention_mask"] = torch.nn.utils.rnn.pad_sequence(ones, True, 0).long()
    return out


def _key_sets(rows):
    return sorted({str(sorted(row)) for row in rows})[:3]


def _of_completions(given):
    """Prompts and completions, as GRPO has them, as sequences."""
    parts = "prompt", "completion"
    masks = [given.pop(f"{part}_mask", None) for part in parts]
    ids = [given.pop(f"{part}_ids") for part in parts]
    masks = [torch.ones_like(i) if m is None else m.long() for i, m in zip(ids, masks)]
    return given | {
        "input_ids": torch.cat(ids, 1),
        "attention_mask": torch.cat(masks, 1),
        "completion_mask": torch.cat([torch.zeros_like(masks[0]), masks[1]], 1),
    }


def _labels(given):
    if "labels" in given:
        return given["labels"]
    ids, mask = given["input_ids"], attended(given)
    if "completion_mask" in given:
        return ids.masked_fill(given["completion_mask"] == 0, IGNORED)
    preceded = torch.cat([torch.zeros_like(mask[:, :1]), mask[:, :-1]], 1)
    return ids.masked_fill(~(mask & preceded), IGNORED)


def attended(batch):
    """Which tokens are no padding, (n, T); transformers tells packed sequences by no mask."""
    mask = batch.get("attention_mask")
    return torch.ones_like(batch["input_ids"]).bool() if mask is None else mask.bool()


def _require_shapes(given, name):
    shape = given["input_ids"].shape
    for key in ("attention_mask", "labels"):
        if key in given and given[key].shape != shape:
            raise ValueError(
                f"{name}[{key!r}] must have the shape {tuple(shape)} of input_ids; got "
                f"{tuple(given[key].shape)}."
            )
    if given["labels"].is_floating_point() or given["labels"].dtype == torch.bool:
        raise ValueError(f"{name}['labels'] must hold token ids; got {given['labels'].dtype}.")


def labelled(batch):
    """Which tokens have a loss: a boolean mask of shape (n, T)."""
    return batch["labels"] != IGNORED


def columns(batch):
    """What of a batch has a row for each sequence."""
    n = len(batch["input_ids"])
    return {key: value for key, value in batch.items() if value.ndim and len(value) == n}


def as_rows(batch):
    """The sequences of a batch, one mapping each, without their padding."""
    positions = batch.get("position_ids")
    if positions is not None and (positions.diff(dim=1) < 0).any():
        raise ValueError("Sequences that are packed into one row can't be taken apart: pass each.")
    rows = []
    for ids, kept, labels in zip(batch["input_ids"], attended(batch), batch["labels"]):
        rows.append({"input_ids": ids[kept].cpu(), "labels": labels[kept].cpu()})
    return rows
