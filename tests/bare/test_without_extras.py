"""What works without any optional extra; and the errors that say which one is missing."""

import subprocess
import sys
import textwrap

import pytest

BLOCKED = (
    "matplotlib",
    "pandas",
    "polars",
    "pyarrow",
    "transformers",
    "distributed",
    "imblearn",
    "rich",
)


BLOCK = f"""
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        blocked = name.split(".")[0] in {BLOCKED}
        return None if blocked else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(f) for f in sys.meta_path if hasattr(f, "find_spec")]
"""


def run(code):
    """Runs code in a process that can import none of the extras."""
    script = BLOCK + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


PREPARED = """
    import numpy as np, torch
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn_lpntk import FarthestPointClustering, LpNTKTransformer, RedundancyPruner
    from sklearn_lpntk.dynamics import predict_update
    from sklearn_lpntk.infinite import LabelRefurbisher
    from sklearn_lpntk.inspection import PruningCurveDisplay
    from sklearn_lpntk.active import LookaheadQuery
    from sklearn_lpntk.kernels import lpntk_kernel
    from sklearn_lpntk.linearized import NTKClassifier
    X, y = load_iris(return_X_y=True)
    net = torch.nn.Linear(4, 3)
"""
WORKS = {
    "kernels": "assert lpntk_kernel(net, X, y).shape == (150, 150)",
    "dynamics": "predict_update(net, X[:9], y[:9], X, learning_rate=0.1)",
    "pruner": "RedundancyPruner(LogisticRegression(max_iter=500), random_state=0).fit(X, y)",
    "retrained": "assert RedundancyPruner(random_state=0).fit(X, y).score(X, y) > 0.8",
    "mixed rows": """
    rows = [[value, str(k % 3)] for k, value in enumerate(X[:, 0])]
    RedundancyPruner(random_state=0).fit(np.array(rows, dtype=object), y)
    """,
    "transformer": "LpNTKTransformer(random_state=0, n_components=8).fit_transform(X, y)",
    "clustering": "FarthestPointClustering(5).fit(X)",
    "refurbisher": "assert len(LabelRefurbisher().fit(X, y).labels_) == 150",
    "linearised": "assert NTKClassifier(random_state=0).fit(X, y).score(X, y) > 0.9",
    "look-ahead": "assert len(LookaheadQuery(net).fit(X[::9], y[::9]).query(X, 3)) == 3",
    "cache": """
    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        RedundancyPruner(random_state=0, memory=folder).fit(X, y)
    """,
}
MISSING = {
    "frame of a pruner": ("RedundancyPruner(random_state=0).fit(X, y).to_frame()", "pandas"),
    "flips": ("LabelRefurbisher().fit(X, y).flips_", "pandas"),
    "review": ("LabelRefurbisher().fit(X, y).review(X)", "pandas"),
    "picture": ("PruningCurveDisplay.from_predictions([0.5], {'a': [[1.0]]})", "matplotlib"),
}


@pytest.mark.parametrize("case", WORKS)
def test_what_works(case):
    done = run(textwrap.dedent(PREPARED) + textwrap.dedent(WORKS[case]))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("case", MISSING)
def test_what_is_missing_is_named(case):
    code, library = MISSING[case]
    done = run(textwrap.dedent(PREPARED) + code)
    assert done.returncode == 1
    assert f"requires {library}" in done.stderr
