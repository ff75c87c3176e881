"""Prints the oldest version of every dependency that pyproject.toml allows, as pip's constraints.

``python tools/oldest.py [extra ...] > oldest.txt``. torch is left to constraints.txt: older builds
for the CPU are not where the others are.
"""

import re
import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def oldest(extras):
    """Lines ``name==version`` of the dependencies, and of those of some extras."""
    wanted = PROJECT["dependencies"] + [
        line for extra in extras for line in PROJECT["optional-dependencies"][extra]
    ]
    bounds = dict(re.fullmatch(r"([\w-]+)>=([\w.]+)", line).groups() for line in wanted)
    return [f"{name}=={version}" for name, version in sorted(bounds.items()) if name != "torch"]


if __name__ == "__main__":
    print("\n".join(oldest(sys.argv[1:])))
