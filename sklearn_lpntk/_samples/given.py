"""Samples and labels as an estimator is given them: checked, and in the form that they have."""

import warnings
from contextlib import suppress

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.utils import _safe_indexing, check_array, check_consistent_length
from sklearn.utils.validation import _num_samples, validate_data

from .._engine.inputs import mapped, n_rows
from .datasets import Items, as_array, is_dataset, is_slices, opened, subset_of
from .inputs import as_inputs, has_parts, require_numbers
from .labels import require_classes, require_targets
from .tables import is_frame, is_table


def given(
    estimator, X, y=None, *, reset=True, tables=False, raw=False, any_dtype=False, numbers=False
):
    """X and y, checked as far as each kind of X allows.

    Parameters
    ----------
    estimator : BaseEstimator
        Gets ``n_features_in_`` and ``feature_names_in_`` where X has columns.
    y : array-like of shape (n_samples,), default=None
        In `fit` None takes the labels of a data set's items.
    reset : bool, default=True
        Whether this is `fit`.
    tables : bool, default=False
        Whether columns that are no numbers, and missing values, are taken.
    raw : bool, default=False
        Whether anything is taken that has rows.
    any_dtype : bool, default=False
        Whether an array may hold anything.
    numbers : bool, default=False
        Whether y are numbers to be predicted, not classes.

    Returns
    -------
    X : ndarray of numbers, CSR array, table, dict or tuple of arrays, or map-style data set
    y : ndarray of shape (n_samples,), or None where none was given
    """
    dtype = None if any_dtype else "numeric"
    options = {"reset": reset, "dtype": dtype, "allow_nd": True, "accept_sparse": "csr"}
    if reset:
        options["ensure_min_samples"] = 2
    _refuse_items(X)
    require = require_targets if numbers else require_classes
    if y is not None and reset:
        require(y)
    if is_dataset(X):
        y = Items(X).labels(several=numbers) if y is None and reset else y
    elif has_parts(X):
        X = mapped(_finite, as_inputs(X))
    elif raw or (tables and is_table(X)):
        with suppress(TypeError):  # texts have no columns
            validate_data(estimator, X, reset=reset, skip_check_array=True)
    else:
        flat = len(getattr(X, "shape", (0, 0))) == 2
        options["ensure_all_finite"] = "allow-nan" if tables and flat else True
        X = as_array(X) if isinstance(X, torch.Tensor) else _without_masks(X)
        if is_frame(X) and not (tables or any_dtype):
            require_numbers(X)
        if not reset or y is None:
            return validate_data(estimator, X, **({"y": y} if reset else {}), **options), None
        X, y = validate_data(estimator, X, y, multi_output=numbers, y_numeric=numbers, **options)
        return X, y.astype(np.float64) if numbers else y
    return X, _checked(y, n_samples_of(X), require) if reset else None


def _checked(y, n, require):
    if y is None:
        raise ValueError("y is None, and X has no labels of its own: pass y, a label for each row.")
    require(y)
    dtype = np.float64 if require is require_targets else None
    y = check_array(y, ensure_2d=False, dtype=dtype, input_name="y", allow_nd=True)
    y = y[:, 0] if y.ndim == 2 and require is require_classes else y
    check_consistent_length(range(n), y)
    if n < 2:
        raise ValueError(f"Found array with {n} sample(s) while a minimum of 2 is required.")
    return y


def _finite(rows):
    is_float = isinstance(rows, np.ndarray) and rows.dtype.kind == "f"
    if isinstance(rows, torch.Tensor):
        finite = bool(torch.isfinite(rows).all())
    else:
        finite = not is_float or bool(np.isfinite(rows).all())
    if not finite:
        raise ValueError("X contains NaN or infinity; the network needs finite inputs.")
    return rows


def _refuse_items(X):
    """Refuse the list that scikit-learn makes of a data set when it takes rows of it."""
    if isinstance(X, list) and X and isinstance(X[0], (tuple, dict)):
        parts = X[0].values() if isinstance(X[0], dict) else X[0]
        if any(isinstance(part, torch.Tensor) for part in parts):
            raise TypeError(
                "X is a list of items of a data set, as cross-validation takes them: pass "
                "skorch.helper.SliceDataset of the data set, with y."
            )


def _without_masks(X):
    if np.ma.is_masked(X):
        raise ValueError("X is a masked array with masked entries; fill them, or make them NaN.")
    return X


def n_samples_of(X):
    """Number of samples in X of any kind."""
    if is_dataset(X):
        return len(opened(X, "X")[0])
    return n_rows(X) if has_parts(X) else _num_samples(X)


def require_taking(estimator, X):
    """Refuse for an estimator of scikit-learn what it would iterate over, or take for a row."""
    known = type(estimator).__module__.startswith("sklearn.")
    if known and (is_dataset(X) or has_parts(X)):
        raise TypeError(
            f"X is a {type(X).__name__}, which {type(estimator).__name__} can't be fitted to: pass "
            "a skorch classifier as estimator=, or one array."
        )


def require_indexable(X):
    """Refuse what scikit-learn's cross-validation can't take rows of."""
    if is_dataset(X) and not is_slices(X):
        raise TypeError(
            "X is a data set, which cross-validation can't take rows of: pass "
            "skorch.helper.SliceDataset of it."
        )
    if has_parts(X) and not hasattr(X, "shape"):
        raise TypeError(
            f"X is a {type(X).__name__} of arrays, which cross-validation can't take rows of: pass "
            "a skorch.helper.SliceDict of them."
        )


def rows_of(X, rows):
    """Some rows of X or y, in the form that the caller gave."""
    rows = np.asarray(rows)
    if is_dataset(X):
        return subset_of(X, rows)
    if has_parts(X):
        taken = mapped(lambda part: rows_of(part, rows), X)
        try:
            return type(X)(**taken) if isinstance(X, dict) else taken
        except TypeError:
            return taken
    if issparse(X):
        return X.tocsr()[rows]
    if isinstance(X, torch.Tensor):
        return X[torch.from_numpy(rows).to(X.device)]
    try:
        return _safe_indexing(X if hasattr(X, "__getitem__") else np.asarray(X), rows)
    except TypeError:  # an index of pandas, for one
        return np.asarray(X)[rows]


def like(form, labels):
    """Labels in the form of others: a series with its index, a tensor, or an array."""
    if hasattr(form, "iloc") and form.ndim == 1:
        return type(form)(labels, index=form.index, name=form.name).astype(form.dtype)
    if isinstance(form, torch.Tensor):
        return torch.as_tensor(labels, dtype=form.dtype, device=form.device)
    if type(form).__module__.split(".")[0] == "polars" and hasattr(form, "dtype"):
        return type(form)(form.name, labels, dtype=form.dtype)
    return labels


def index_of(X, y=None):
    """The names that the caller gave the rows: the index of a frame or of labels, or None."""
    both = hasattr(X, "iloc") and hasattr(y, "iloc") and len(X) == len(y)
    if both and not X.index.equals(y.index) and set(X.index) == set(y.index):
        warnings.warn(
            "X and y have the same index in another order; they are paired by position. Pass "
            "y.loc[X.index] if they belong together by name.",
            UserWarning,
            stacklevel=5,
        )
    for named in (X, y):
        if hasattr(named, "iloc"):
            return named.index
    return None
