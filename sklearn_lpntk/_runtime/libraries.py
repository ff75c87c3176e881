"""What is a library's: it changes with the library's version only."""

import functools
import importlib.metadata
import sys
from pathlib import Path

PYTHON = {"builtins", *sys.stdlib_module_names} - {"__main__"}
INSTALLED = {"joblib", "numpy", "scipy", "sklearn", "skorch", "torch", "sklearn_lpntk"}


def is_library(module_name):
    """Whether a module is one of Python's or of an installed package, with a version."""
    return version_of(module_name) is not None


def version_of(module_name):
    """Name and version of the library that a module belongs to; None for a user's module."""
    package = module_name.split(".")[0] if isinstance(module_name, str) else ""
    if package in PYTHON:
        return "python {}.{}".format(*sys.version_info)
    return _version(package, getattr(sys.modules.get(package), "__file__", None))


@functools.cache
def _version(package, file):
    # code that one edits lies elsewhere
    is_installed = not {"site-packages", "dist-packages"}.isdisjoint(Path(file or "").parts)
    if package not in INSTALLED and not is_installed:
        return None
    found = getattr(sys.modules.get(package), "__version__", None) or _from_metadata(package)
    return f"{package} {found}" if found or package in INSTALLED else None


def _from_metadata(package):
    names = [package, *importlib.metadata.packages_distributions().get(package, ())]
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def is_at_its_name(value):
    """Whether a value is what its library has under its name, so that the name stands for it."""
    try:
        module, name = value.__module__, value.__qualname__
        found = sys.modules[module]
        for step in name.split("."):
            found = getattr(found, step)
    except Exception:  # what a class of the user's raises for a name that it does not know
        return False
    return found is value and is_library(module)
