from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_lpntk import RedundancyPruner

X, y = load_digits(return_X_y=True)
splits = StratifiedShuffleSplit(n_splits=10, test_size=0.3, random_state=0)
for fraction in (0.5, 0.95):
    for strategy in ("herding", "random"):  # the second is the control
        pruner = RedundancyPruner(
            LogisticRegression(max_iter=2000),
            strategy=strategy,
            prune_fraction=fraction,
            memory="cache",  # one scoring net a split, whatever is tried
            random_state=0,
        )
        scores = cross_val_score(make_pipeline(StandardScaler(), pruner), X, y, cv=splits)
        error = scores.std(ddof=1) / len(scores) ** 0.5
        print(f"{strategy:8} {fraction:4.0%} pruned: {scores.mean():.3f} ± {error:.3f}")
