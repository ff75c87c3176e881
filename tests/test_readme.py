"""The README's examples run as they are written."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


def test_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), names)
    assert names["search"].best_score_ > 0.9
    assert names["K"].shape == (200, 200)
    assert "redundancypruner__strategy" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["demo", "test"])
def test_commands_are_targets(name):
    assert f"make {name}" in README.read_text()
    assert f"\n{name}:" in README.with_name("Makefile").read_text()


def test_pictures_exist():
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README.read_text()):
        assert (README.parent / path).exists()
