"""Every parameter of what is public is described, and no summary is cut at an abbreviation."""

import importlib
import inspect
import re

import pytest

validate = pytest.importorskip("numpydoc.validate").validate
PARTS = "kernels dynamics infinite inspection cluster datasets distillation language"
MODULES = "", *(f".{part}" for part in PARTS.split())
# named tuples, whose fields are described as attributes
RESULTS = {"ForgettingPrediction", "UpdatePrediction", "ClassEntanglement", "LabelSchemes"}


def public_names():
    for part in MODULES:
        module = importlib.import_module(f"sklearn_lpntk{part}")
        for name in module.__all__:
            value = getattr(module, name)
            yield f"{module.__name__}.{name}"
            if inspect.isclass(value):
                for method, function in vars(value).items():
                    known = inspect.isfunction(function) or isinstance(function, classmethod)
                    if known and not method.startswith("_"):
                        yield f"{module.__name__}.{name}.{method}"


@pytest.mark.parametrize("name", list(public_names()))
def test_parameters_are_described(name):
    wanted = {"PR02", "PR07", "GL08"}  # unknown, undescribed, no docstring
    if name.split(".")[-1] not in RESULTS:
        wanted.add("PR01")  # undocumented
    found = validate(name)
    assert [error for error in found["errors"] if error[0] in wanted] == []
    summary = found["docstring"].split("\n\n")[0]
    assert not re.search(r"\b(Eq|Sec|Fig|e\.g|i\.e|cf)\.", summary)  # tables cut it there
