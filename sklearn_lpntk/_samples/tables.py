"""Tables: which columns are numbers, and what stands in them, whatever library made them."""

import numpy as np

from .inputs import kind_of, series_of, unboxed


def is_frame(X):
    """Whether X is a table of pandas, polars, pyarrow or their like."""
    framed = hasattr(X, "iloc") or hasattr(X, "to_pandas")
    return framed and len(getattr(X, "shape", ())) == 2


def is_table(X):
    """Whether X has columns that are no numbers, or gaps: a frame, or rows of mixed kinds."""
    if is_frame(X):
        return any(_kind(c) not in "biuf" or c.isna().any() for c in series_of(X))
    X = np.asarray(X, dtype=object) if isinstance(X, list) else X
    if not isinstance(X, np.ndarray) or X.ndim != 2 or X.dtype.kind not in "OU":
        return False
    known = str, int, float, np.generic, type(None)
    return any(isinstance(v, (str, type(None))) for v in X.flat) and all(
        isinstance(v, known) for v in X.flat
    )


def columns_of_table(X):
    """The columns as arrays: of floats where they are numbers, booleans or dates (in days), with
    NaN where one is missing; else of objects, with None.
    """
    if is_frame(X):
        return [_of_series(column) for column in series_of(X)]
    return [_of_objects(column) for column in np.asarray(X, dtype=object).T]


def _kind(column):
    """That of a series, of which a categorical one holds no numbers."""
    return "O" if str(column.dtype) == "category" else kind_of(column)


def _of_series(column):
    kind = _kind(column)
    if kind in "mM":
        origin = np.timedelta64(0, "D") if kind == "m" else np.datetime64(0, "D")
        values = column.to_numpy(dtype=f"{kind}8[s]")  # finer units end in the year 2262
        return (values - origin) / np.timedelta64(1, "D")
    if kind in "biuf":
        return column.to_numpy(dtype=float, na_value=np.nan)
    objects = column.astype(object).where(column.notna(), None).to_numpy()
    return objects if str(column.dtype) == "category" else _of_objects(objects)


def _of_objects(column):
    column = np.array([None if v is None or v != v else v for v in column], dtype=object)
    numbers = unboxed(np.array([np.nan if v is None else v for v in column], dtype=object))
    return numbers.astype(float) if numbers.dtype.kind in "biuf" else column
