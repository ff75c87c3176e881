"""Imports point down one way: a file may import from its own layer's list and below."""

import ast
from pathlib import Path

import pytest

import sklearn_lpntk

ROOT = Path(sklearn_lpntk.__file__).parent

# what each part may import, besides itself and the ground floor (exceptions, _version);
# "folder.file" allows one file of a folder
ALLOWED = {
    "exceptions": set(),
    "_version": set(),
    "datasets": set(),
    "_runtime": set(),
    "_engine": {
        "_runtime.files",
        "_runtime.locks",
        "_runtime.memory",
        "_runtime.progress",
        "_runtime.turns",
        "_runtime.views",
    },
    "_samples": {"_engine"},
    "_skorch": {"_runtime", "_engine", "_samples"},
    "_operator": {"_engine"},
    "_features": {"_runtime", "_engine", "_operator", "_samples", "_skorch"},
    "kernels": {"_runtime", "_engine", "_features", "_operator", "_skorch"},
    "cluster": {"_runtime", "_samples"},
    "_gram": {"_runtime", "_samples"},
    "_margins": set(),
    "infinite": {"_runtime", "_samples", "_gram", "_margins"},
    "linearized": {"_runtime", "_engine", "_samples", "_skorch", "_features", "_operator", "_gram"},
    "active": {
        "_runtime",
        "_engine",
        "_samples",
        "_skorch",
        "_features",
        "_operator",
        "_gram",
        "linearized",
    },
    "_transformer": {"_runtime", "_samples", "_skorch", "_features"},
    "language": {"_runtime", "_engine", "_skorch.nets", "_features", "_operator", "pruning"},
    "pruning": {
        "_runtime",
        "_engine",
        "_samples",
        "_skorch",
        "_features",
        "_gram",
        "_margins",
        "cluster",
        "dynamics",
        "infinite",
        "linearized",
    },
    "dynamics": {
        "_runtime.progress",
        "_runtime.turns",
        "_engine",
        "_samples",
        "_skorch",
        "_features",
        "_gram",
        "kernels",
        "linearized",
    },
    "distillation": {"dynamics"},
    "inspection": {
        "_runtime.progress",
        "_samples",
        "_skorch.scoring",
        "cluster",
        "dynamics",
        "infinite",
        "kernels",
        "linearized",
        "pruning",
    },
    "__init__": {"_transformer", "cluster", "pruning"},
}
# a file of the engine imports from the lines above its own only
ENGINE = [
    {"names", "parameters", "plan", "products", "session", "task"},
    {"cotangents", "inputs"},
    {"factors", "objectives", "samples"},
    {"sparse"},
    {"tied"},
    {"forms"},
    {"compositions", "features", "following", "rules"},
    {"autograd", "blocks", "picking", "shards", "sketch"},
    {"capture", "sources"},
    {"trace"},
    {"check", "kernel", "store"},
    {"bounds", "evaluate", "extract"},
    {"directional", "gather", "reductions", "rows"},
    {"relations"},
]
# within these folders, a file may import only the files named here
INSIDE = {
    "_runtime": {
        "locks": {"files"},
        "names": {"libraries"},
        "values": {"libraries", "turns"},
        "views": {"turns"},
        "code": {"libraries", "names", "values"},
        "fingerprint": {"code", "turns", "values"},
        "entries": {"files"},
        "fitting": {"progress"},
        "cache": {"entries", "files", "fingerprint", "locks"},
    },
    "_samples": {
        "inputs": {"datasets"},
        "columns": {"datasets", "labels"},
        "digest": set(),
        "labels": set(),
        "tables": {"inputs"},
        "preparation": {"tables"},
        "given": {"datasets", "inputs", "labels", "tables"},
    },
    "_skorch": {
        "labels": {"nets"},
        "networks": {"nets"},
        "scoring": {"default_net", "nets", "networks"},
    },
}
GROUND = {"exceptions", "_version"}
# heavy libraries that only these parts may know
RESTRICTED = {
    "skorch": {
        "_runtime.cache",
        "_runtime.fingerprint",
        "_runtime.values",
        "_skorch",
        "dynamics",
        "pruning",
    },
    "sklearn": set(ALLOWED) - {"_engine", "exceptions", "_version"},
    "scipy": set(ALLOWED) - {"_engine", "exceptions", "_version"},
    "joblib": {"_runtime.cache", "_runtime.parallel"},
}
OPTIONAL = {
    "matplotlib",
    "pandas",
    "polars",
    "dask",
    "distributed",
    "imblearn",
    "skactiveml",
    "transformers",
    "trl",
    "peft",
}
DOORS = {"active.skactiveml": "skactiveml", "language.trl": "transformers"}


def module_of(path):
    """Dotted name of a file below the package."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports_of(path):
    """(our module or a library, is it ours, at top level) of every import in a file."""
    tree = ast.parse(path.read_text())
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            target = (*base, *filter(None, (node.module or "").split(".")))
            names = [".".join(target)]
            if not node.module:
                names = [".".join((*target, alias.name)) for alias in node.names]
            yield from ((name, True, node in tree.body) for name in names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0], False, node in tree.body
        elif isinstance(node, ast.Import):
            yield from ((a.name.split(".")[0], False, node in tree.body) for a in node.names)


def is_among(module, names):
    """Whether a module, or the part that it is in, is named."""
    return bool({module, module.split(".")[0], ".".join(module.split(".")[:2])} & names)


def may_import(module, other):
    part = module.split(".")[0]
    if other.split(".")[0] != part:
        return is_among(other, ALLOWED[part] | GROUND)
    file, other = module.split(".")[1:2], other.split(".")[1]
    if part == "_engine" and file != ["__init__"]:
        level = {name: k for k, names in enumerate(ENGINE) for name in names}
        return file == [other] or level[other] < level[file[0]]
    return part not in INSIDE or other in INSIDE[part].get("".join(file), set())


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    module = module_of(path)
    for name, ours, top_level in imports_of(path):
        if ours:
            assert may_import(module, name), f"{module} imports {name}"
        elif name in RESTRICTED:
            assert is_among(module, RESTRICTED[name]), f"{module} imports {name}"
        own = DOORS.get(module) == name
        assert own or not (name in OPTIONAL and top_level), f"{module} needs {name} at import"


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
