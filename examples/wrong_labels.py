"""
Find wrong labels before any training
=====================================

A fifth of the labels of the digits are wrong. A kernel of an infinitely wide network, which needs
no training, says which.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

from sklearn_lpntk.infinite import LabelRefurbisher, RefurbishedClassifier
from sklearn_lpntk.inspection import ErrorPathDisplay, FlippedLabelsDisplay

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X, y, random_state=0)
rng = np.random.default_rng(0)
wrong = rng.random(len(y)) < 0.2
noisy = np.where(wrong, (y + rng.integers(1, 10, len(y))) % 10, y)

# %%
# ``fit`` finds, and ``flips_`` explains: which sample, its label, a better one, and by how much
# leave-one-out prediction prefers it. No share of wrong labels is given. How many of the flips are
# likely wrong is estimated.

refurbisher = LabelRefurbisher().fit(X, noisy)
labels = refurbisher.labels_
print(refurbisher.flips_.head())
print(f"estimated share of wrong flips: {refurbisher.wrong_flip_share_:.0%}")

# %%
# The clearest ones, and on the way the block-diagonalisation error, which is low where labels are
# easy to learn:

FlippedLabelsDisplay.from_estimator(refurbisher, X, image_shape=(8, 8))
ErrorPathDisplay.from_estimator(refurbisher)

# %%
# What was repaired, and what was harmed:

changed = labels != noisy
print(f"labels that are right   {(noisy == y).mean():.1%} before, {(labels == y).mean():.1%} after")
print(f"wrong labels restored   {(labels == y)[wrong].mean():.1%}")
print(f"right labels harmed     {(labels != y)[~wrong].mean():.1%}")
print(f"changes that hit wrong  {wrong[changed].mean():.1%} of {changed.sum()}")

# %%
# In front of a classifier it is one more estimator. The control is the same classifier on the right
# labels.

plain = SVC(C=10).fit(X, noisy).score(X_test, y_test)
repaired = RefurbishedClassifier(SVC(C=10)).fit(X, noisy).score(X_test, y_test)
clean = SVC(C=10).fit(X, y).score(X_test, y_test)
print(f"test accuracy of an SVC: {plain:.1%}; repaired {repaired:.1%}; clean {clean:.1%}")

plt.show()
