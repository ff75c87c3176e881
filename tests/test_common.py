"""scikit-learn's own checks, with no expected failure."""

from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_lpntk import FarthestPointClustering, LpNTKTransformer, RedundancyPruner


@parametrize_with_checks(
    [
        FarthestPointClustering(),
        LpNTKTransformer(),
        RedundancyPruner(),
        RedundancyPruner(LogisticRegression()),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
