"""Which names code reads: globals, attributes and imports."""

import dis
import functools
import sys

from .libraries import is_library


def global_names(code):
    """Names that code reads from its module, nested code included."""
    return _scan(code)[0]


def imported_modules(code, package):
    """The loaded users' modules that code imports as it runs, by name."""
    steps = package.split(".") if package else []
    homes = ["", *(".".join(steps[: n + 1]) + "." for n in range(len(steps)))]
    found = {home + name for home in homes for name in _scan(code)[1]}
    return {n: sys.modules[n] for n in found if n in sys.modules and not is_library(n)}


def all_names(code):
    """Every name in code, attributes and strings (of getattr) included, nested code included."""
    codes = list(_codes(code))
    strings = {c for part in codes for c in part.co_consts if isinstance(c, str)}
    return frozenset(strings.union(*(part.co_names for part in codes)))


@functools.lru_cache(maxsize=10_000)
def _scan(code):
    """Names of globals, and of imported modules."""
    found = [i for part in _codes(code) for i in dis.get_instructions(part)]
    names = {i.argval for i in found if "GLOBAL" in i.opname or i.opname == "LOAD_NAME"}
    return names, {i.argval for i in found if i.opname == "IMPORT_NAME"}


def _codes(code):
    yield code
    for const in code.co_consts:
        if isinstance(const, type(code)):
            yield from _codes(const)
