"""
Choose an architecture before any training
==========================================

Kernels of infinitely wide networks, dense and convolutional, compared on digits by how far apart
the classes lie in their leading components; beside it, as a check, the accuracy of an SVC with each
kernel. Run ``python examples/choose_architecture.py``.
"""

from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVC

from sklearn_lpntk.infinite import ArchitectureSelector, InfiniteWidthConvNTK, InfiniteWidthNTK


def main(n=600):
    X, y = load_digits(return_X_y=True)
    X, y = X[:n] / 16, y[:n]
    image = {"image_shape": (1, 8, 8)}
    kernels = [
        ("dense, depth 1", InfiniteWidthNTK(1)),
        ("dense, depth 3", InfiniteWidthNTK(3)),
        ("dense, depth 10", InfiniteWidthNTK(10)),
        ("dense, depth 3, erf", InfiniteWidthNTK(3, "erf", bias_std=0.1)),
        ("conv, depth 1", InfiniteWidthConvNTK(1, **image)),
        ("conv, depth 3", InfiniteWidthConvNTK(3, **image)),
    ]
    selector = ArchitectureSelector(kernels).fit(X, y)
    accuracy = [
        cross_val_score(SVC(kernel="precomputed"), kernel(X), y, cv=5).mean()
        for _, kernel in kernels
    ]
    print("architecture            distance ratio   accuracy of an SVC with this kernel")
    for name, score, right in zip(selector.results_["name"], selector.scores_, accuracy):
        chosen = "  <- chosen" if name == kernels[selector.best_index_][0] else ""
        print(f"{name:<24}{score:>10.3f}{right:>14.1%}{chosen}")
    rank = spearmanr(selector.scores_, accuracy).statistic
    print(f"rank correlation of ratio and accuracy over the six: {rank:.2f}")
    return selector, accuracy


if __name__ == "__main__":
    main()
