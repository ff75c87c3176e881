"""
Read a pruning curve honestly
=============================

A curve of accuracy against the pruned share says little by itself: on easy data any half of the
samples is enough. Three lines make it readable: all samples, random ones of the same number, and
the rule. The rule has something to offer where its band lies above that of random ones, and
nowhere else.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit

from sklearn_lpntk import RedundancyPruner
from sklearn_lpntk.inspection import PruningCurveDisplay

X, y = load_digits(return_X_y=True)
pruner = RedundancyPruner(LogisticRegression(max_iter=300), random_state=0)
splits = StratifiedShuffleSplit(n_splits=4, test_size=0.4, random_state=0)
display = PruningCurveDisplay.from_estimator(
    pruner,
    X / 16,
    y,
    strategies=["herding", "redundant", "random"],
    fractions=[0.5, 0.8, 0.95],
    cv=splits,
    memory="curve_cache",  # one scoring net a fold, whatever the number of cells
)

# %%
# The black dashed line is the control. What to ask of a cell: how far above random is it, and is
# that more than the spread of the splits?

random = display.scores["random"]
print(f"all samples: {np.mean(display.full_scores):.3f}")
for name, scores in display.scores.items():
    gains = 100 * (scores - random)
    error = gains.std(axis=1, ddof=1) / np.sqrt(gains.shape[1])
    cells = [f"{g:+5.1f} ± {e:3.1f}" for g, e in zip(gains.mean(axis=1), error)]
    print(f"{name:10s} to random, in points: {'  '.join(cells)}")

# %%
# And what not to conclude:
#
# * that pruning made the training cheaper: a network was trained on all samples to choose them;
# * anything from one split, or from a curve without the random line;
# * that the rule which wins here wins on your data: keep ``"random"`` in the grid, and where it
#   wins, believe it.
