"""
Review and export label errors
==============================

``LabelRefurbisher`` predicts each label from all others with a kernel that knows no labels. Use
it as a list of what to look at: every label gets a quality, and the most doubtful ones come
first, under your own names of the rows. Repairing without looking is the second step, where the
estimated share of wrong repairs is low.
"""

import numpy as np
from sklearn.datasets import load_breast_cancer

from sklearn_lpntk.infinite import LabelRefurbisher
from sklearn_lpntk.inspection import FlippedLabelsDisplay

X, y = load_breast_cancer(as_frame=True, return_X_y=True)
X.index = y.index = [f"patient {k:03d}" for k in range(len(X))]
names = np.array(["malignant", "benign"])
truth = y.map(dict(enumerate(names)))
wrong = np.random.default_rng(0).random(len(y)) < 0.08
given = truth.where(~wrong, np.where(truth == "benign", "malignant", "benign"))

# %%
# Columns of different units need no scaling in front: it is decided by what predicts the labels
# better.

refurbisher = LabelRefurbisher().fit(X, given)
print(f"standardised: {refurbisher.standardized_}")
print(f"labels changed: {len(refurbisher.flips_)}, really wrong: {wrong.sum()}")
print(f"estimated share of wrong changes: {refurbisher.wrong_flip_share_:.0%}")

# %%
# The rows to look at first, with the columns of the table beside them:

review = refurbisher.review(X, n=60)
review.iloc[:5, :7]

# %%
# Of the first 20, 40 and 60 so many are really wrong, where random rows would give 8 %:

for n in (20, 40, 60):
    print(f"first {n}: {wrong[review['row'][:n]].mean():.0%}")

# %%
# Export them for whoever knows, with a column to fill in:

review.assign(checked_label="").to_csv("labels_to_check.csv")

# %%
# And the repaired labels come back as they went in, a series with its index:

labels = refurbisher.labels_
print(labels.head(3))
print(f"right: {(given == truth).mean():.1%} before, {(labels == truth).mean():.1%} after")
FlippedLabelsDisplay.from_estimator(refurbisher, X, n_images=10)
