"""What a fitted pruner found, as a table under the caller's names of the rows."""

import numpy as np
from sklearn.utils._optional_dependencies import check_pandas_support


def frame_of(pruner):
    """The frame of `RedundancyPruner.to_frame`."""
    pd = check_pandas_support("RedundancyPruner.to_frame")
    n = len(pruner.prune_order_)
    index = pd.RangeIndex(n) if pruner._row_names is None else pruner._row_names
    rank = np.empty(n, dtype=np.int64)
    rank[pruner.prune_order_] = np.arange(n)
    columns = {"kept": pruner.support_, "prune_rank": rank}
    if hasattr(pruner, "_scores"):
        columns["score"] = pruner._scores
    if hasattr(pruner, "_stand_ins"):
        rows, cosines = pruner._stand_ins.among(pruner.support_)
        columns |= {"stand_in": _named(rows, index), "cosine": cosines}
    if hasattr(pruner, "redundancy_"):
        columns["redundancy"] = pruner.redundancy_
        columns["dominator"] = _named(pruner.dominators_, index)
    if hasattr(pruner, "labels_"):
        columns["cluster"] = pruner.labels_
    return pd.DataFrame(columns, index=index)


def _named(rows, index):
    """Rows by the names that the caller gave them; none for -1."""
    import pandas as pd

    names = index.take(np.maximum(rows, 0))
    dtype = "Int64" if pd.api.types.is_integer_dtype(index.dtype) else object
    found = pd.array(names.to_numpy(), dtype=dtype)
    found[rows < 0] = None
    return found
