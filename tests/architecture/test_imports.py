"""Imports point down one way: a file may import from its own layer's list and below."""

import ast
from pathlib import Path

import pytest

import sklearn_lpntk

ROOT = Path(sklearn_lpntk.__file__).parent

# what each part may import, besides itself and the ground floor (exceptions, _version)
ALLOWED = {
    "exceptions": set(),
    "_version": set(),
    "_engine": set(),
    "_memory": set(),
    "datasets": set(),
    "_fingerprint": set(),
    "_locks": set(),
    "_parallel": set(),
    "_cache": {"_fingerprint"},
    "_nets": {"_cache", "_engine"},
    "_labels": {"_nets"},
    "_default_net": set(),
    "_fitting": set(),
    "_features": {"_engine", "_fingerprint", "_nets", "_parallel"},
    "kernels": {"_engine", "_features"},
    "cluster": {"_fitting"},
    "_transformer": {"_features", "_nets", "_labels", "_default_net", "_cache", "_fitting"},
    "pruning": {
        "_engine",
        "_features",
        "_nets",
        "_labels",
        "_default_net",
        "_cache",
        "_fitting",
        "_parallel",
        "cluster",
    },
    "_batches": set(),
    "infinite": {"_fitting"},
    "dynamics": {"_batches", "_engine", "_features", "_nets", "kernels"},
    "inspection": {"cluster", "dynamics", "infinite", "kernels", "pruning"},
    "__init__": {"_transformer", "cluster", "pruning"},
}
GROUND = {"exceptions", "_version", "_locks", "_memory"}
# heavy libraries that only these parts may know
RESTRICTED = {
    "skorch": {
        "_batches",
        "_nets",
        "_labels",
        "_default_net",
        "_cache",
        "_fingerprint",
        "dynamics",
        "pruning",
    },
    "sklearn": set(ALLOWED) - {"_engine", "exceptions", "_version"},
    "scipy": set(ALLOWED) - {"_engine", "exceptions", "_version"},
    "joblib": {"_cache", "_fingerprint", "_parallel"},
}
OPTIONAL = {"matplotlib", "pandas", "polars", "dask", "distributed", "imblearn"}


def part_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports_of(path):
    """(package part or library, is it ours, at top level) of every import in a file."""
    tree = ast.parse(path.read_text())
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            target = (*base, *(node.module or "").split("."))
            names = [target[0]] if target[0] else [alias.name for alias in node.names]
            yield from ((name, True, node in tree.body) for name in names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0], False, node in tree.body
        elif isinstance(node, ast.Import):
            yield from ((a.name.split(".")[0], False, node in tree.body) for a in node.names)


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    part = part_of(path)
    for name, ours, top_level in imports_of(path):
        if ours:
            assert name == part or name in ALLOWED[part] | GROUND, f"{part} imports {name}"
        elif name in RESTRICTED:
            assert part in RESTRICTED[name], f"{part} imports {name}"
        assert not (name in OPTIONAL and top_level), f"{part} needs {name} at import"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_small(path):
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = sum(
        node.body[0].end_lineno - node.body[0].lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, documented) and ast.get_docstring(node)
    )
    assert len(path.read_text().splitlines()) - docstrings <= 400
