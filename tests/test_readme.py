"""The examples of the README and the user guide run as they are written."""

import importlib.util
import logging
import re
import textwrap
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


WITHOUT_ACTIVE = {
    "condition": importlib.util.find_spec("skactiveml") is None,
    "reason": "the page uses scikit-activeml",
}


def test_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), names)
    assert names["K"].shape == (200, 200)
    assert 0.02 < names["refurbisher"].wrong_flip_share_ < 0.2
    printed = capsys.readouterr().out
    lines = re.findall(r"(herding|random) +(50|95)% pruned: ([0-9.]+) ± ([0-9.]+)", printed)
    told = {mean for *_, mean, _ in lines}
    assert len(lines) == 4
    for text in (README.read_text(), (README.parent / "docs" / "index.rst").read_text()):
        shown = re.findall(r"\b(0\.[0-9]{3}) ± ", text)
        for mean in shown:  # another processor rounds otherwise
            assert min(abs(float(mean) - float(other)) for other in told) <= 0.004
        assert len(shown) == 4


def test_the_quick_start_is_that_of_the_readme():
    quick = (README.parent / "docs" / "quick_start.py").read_text()
    assert re.sub(r"\s", "", quick) == re.sub(r"\s", "", BLOCKS[0])


@pytest.fixture
def _quiet_afterwards():
    """A page switches the log on."""
    root, own = logging.getLogger(), logging.getLogger("sklearn_lpntk")
    handlers = list(root.handlers)
    yield
    root.handlers[:] = handlers
    own.setLevel(logging.NOTSET)


@pytest.fixture
def _no_window():
    """A page draws pictures."""
    import matplotlib

    matplotlib.use("Agg")
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.mark.usefixtures("_quiet_afterwards", "_no_window")
@pytest.mark.parametrize(
    "page",
    [
        "user_guide",
        "own_net",
        "pruning",
        "scale",
        "dynamics",
        "infinite",
        "linearized",
        pytest.param("active", marks=pytest.mark.skipif(**WITHOUT_ACTIVE)),
    ],
)
def test_examples_of_the_user_guide_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (README.parent / "docs" / f"{page}.rst").read_text()
    blocks = re.findall(r"\.\. code-block:: python\n\n((?:   .*\n|\n)+)", text)
    assert blocks
    names = {}
    for block in blocks:
        exec(compile(textwrap.dedent(block), page, "exec"), names)


@pytest.mark.parametrize("name", ["demo", "test"])
def test_commands_are_targets(name):
    assert f"make {name}" in README.read_text()
    assert f"\n{name}:" in README.with_name("Makefile").read_text()


def test_pictures_exist():
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README.read_text()):
        assert (README.parent / path).exists()
