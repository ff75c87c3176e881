"""Labels of classes: what is refused, and what to do about it."""

import numpy as np
from sklearn.utils.multiclass import type_of_target


def require_classes(y, name="y"):
    """Refuse what is no label of one class for each sample, with a remedy."""
    y = np.asarray(y)
    shape = y.shape
    if len(shape) > 1 and shape[1:] != (1,):
        raise ValueError(
            f"{name} has shape {shape}: a multilabel or multi-output target has no one label for a "
            f"sample. Pass one column of it, or {name}.argmax(axis=1) of one-hot rows."
        )
    values = y.ravel()
    require_no_gaps(values, name)
    if values.dtype.kind == "f" and values.size and not np.isfinite(values).all():
        raise ValueError(f"Input {name} contains infinity. Pass labels of classes.")
    if values.dtype.kind == "O" and len({isinstance(label, str) for label in values}) == 2:
        kinds = sorted({type(label).__name__ for label in values})
        raise ValueError(f"{name} mixes labels of the types {', '.join(kinds)}; use one of them.")
    if values.size and values.dtype.kind == "f" and type_of_target(values) == "continuous":
        raise ValueError(
            f"Unknown label type: continuous. {name} holds numbers such as {values[0]!r}, a "
            "regression target, and samples are compared by class: pass classes, for example by "
            "sklearn.preprocessing.KBinsDiscretizer."
        )


def require_targets(y, name="y"):
    """Refuse what are no finite numbers, one or several for each sample."""
    y = np.asarray(y)
    if y.ndim not in (1, 2) or 0 in y.shape[1:]:
        raise ValueError(
            f"{name} must have shape (n_samples,) or (n_samples, n_outputs); got {y.shape}."
        )
    require_no_gaps(y.ravel(), name)
    if y.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} must hold real numbers.")
    try:
        values = y.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must hold numbers, a regression target; got {y.dtype} values ({error}). For "
            "labels use NTKClassifier."
        ) from error
    if not np.isfinite(values).all():
        raise ValueError(f"Input {name} contains infinity.")


def require_no_gaps(values, name):
    """Refuse missing labels, whatever stands for them."""
    missing = np.flatnonzero(is_missing(values))
    if len(missing):
        raise ValueError(
            f"{name} contains NaN, NaT or None in {len(missing)} rows, the first of them "
            f"{missing[0]}: missing labels. Leave out these rows, or label them."
        )


def is_missing(values):
    """Which labels of a one-dimensional array are missing, whatever stands for that."""
    if values.dtype.kind in "mM":
        return np.isnat(values)
    if values.dtype.kind == "f":
        return np.isnan(values)
    if values.dtype.kind != "O":
        return np.zeros(len(values), dtype=bool)
    return np.array([_is_missing(value) for value in values], dtype=bool)


def _is_missing(value):
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, np.floating)) and np.isnan(value)
