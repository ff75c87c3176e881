"""
A table with categories and gaps, in a Pipeline and a grid
==========================================================

The pruner scores the rows with a small network of its own, which takes categories, strings, dates
and missing values. Your model gets the kept rows exactly as they were: encode them there as you
always do.
"""

import numpy as np
import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from sklearn_lpntk import RedundancyPruner

rng = np.random.default_rng(0)
n = 600
customers = pd.DataFrame(
    {
        "age": rng.normal(45, 12, n).round(),
        "city": pd.Categorical(rng.choice(["Lima", "Oslo", "Pune", "Riga"], n)),
        "plan": rng.choice(["basic", "plus", None], n),
        "since": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 700, n), unit="D"),
    },
    index=[f"customer {k:03d}" for k in range(n)],
)
customers.loc[customers.index[::9], "age"] = np.nan
likely = (customers["age"].fillna(45) > 45).to_numpy() ^ (customers["plan"] == "plus").to_numpy()
y = pd.Series(np.where(likely ^ (rng.random(n) < 0.1), "stays", "leaves"), customers.index)
customers.head()

# %%
# The model is an ordinary Pipeline. ``RedundancyPruner`` stands around it, so that cross-
# validation prunes the training part of each fold and never the test part. ``"random"`` in the
# grid is the control.

encode = make_column_transformer(
    (
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
        make_column_selector(dtype_include=["category", "object", "string"]),
    ),
    ("drop", ["since"]),
    remainder="passthrough",
)
model = make_pipeline(encode, HistGradientBoostingClassifier(max_iter=20, random_state=0))
search = GridSearchCV(
    RedundancyPruner(model, random_state=0),
    {"prune_fraction": [0.2, 0.5], "strategy": ["herding", "random"]},
    cv=3,
).fit(customers, y)
results = pd.DataFrame(search.cv_results_)
scores = results.pivot_table("mean_test_score", "param_prune_fraction", "param_strategy")
scores.plot.bar(ylim=(0.5, 1), ylabel="accuracy", xlabel="pruned share", rot=0)
scores.round(3)

# %%
# Which rows went, by your own names of them, and which kept row stands in for each:

search.best_estimator_.set_params(strategy="herding").fit(customers, y)
table = search.best_estimator_.to_frame()
table[~table["kept"]].sort_values("cosine", ascending=False).head()
