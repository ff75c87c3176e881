"""scikit-learn's own checks of the linearised networks."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_lpntk.infinite import InfiniteWidthNTK
from sklearn_lpntk.linearized import NTKClassifier, NTKRegressor

EQUIVALENCE = {
    f"check_sample_weight_equivalence_on_{kind}_data": "weights count in the regression; the net "
    "is trained on rows, whose number changes its batches, as with scikit-learn's SGDClassifier"
    for kind in ("dense", "sparse")
}

NO_KERNEL = dict.fromkeys(
    (
        "check_positive_only_tag_during_fit",
        "check_estimators_dtypes",
        "check_classifiers_one_label_sample_weights",
    ),
    "the X of the check is square, but no kernel matrix: it is not symmetric, or not positive "
    "semidefinite; scikit-learn's _enforce_estimator_tags_X is not called on it",
)


def failing(estimator):
    """The checks that can't be passed, each with its reason."""
    if isinstance(estimator.net, str):
        return NO_KERNEL
    return EQUIVALENCE if estimator.net is None else {}


@parametrize_with_checks(
    [
        NTKClassifier(),
        NTKRegressor(),
        NTKClassifier(InfiniteWidthNTK(bias_std=0.1)),
        NTKRegressor(InfiniteWidthNTK(bias_std=0.1), alpha="gcv"),
        NTKClassifier("precomputed"),
        NTKRegressor("precomputed"),
    ],
    expected_failed_checks=failing,
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
