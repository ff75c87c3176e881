"""The examples run, on little data."""

import runpy
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import pruning_study

    yield pruning_study
    sys.modules.pop("pruning_study")


@pytest.mark.parametrize("n_seeds", [1, 2])
def test_the_pruning_study(study, n_seeds, tmp_path, capsys):
    from sklearn_lpntk.datasets import load_digit_images

    X, y = (array[:160] for array in load_digit_images())
    splits = [(np.arange(100), np.arange(100, 160))] * n_seeds
    net = study.make_net(2, 8, n_steps=2, max_epochs=1)
    accuracy = study.accuracy_grid(net, X, y, splits, (0.5,), cache=str(tmp_path / "cache"))
    assert len(accuracy) == 1 + len(study.STRATEGIES)
    study.print_table(accuracy, (0.5,), 100)
    assert "kept                    50" in capsys.readouterr().out
    study.plot_curves(accuracy, (0.5,), "title", tmp_path / "curves.png")
    pruner = study.RedundancyPruner(net=net, strategy="redundant", random_state=0).fit(X, y)
    study.plot_relations(pruner, X, y, tmp_path / "relations.png")
    assert (tmp_path / "curves.png").exists()
    assert (tmp_path / "relations.png").exists()


def test_the_leak_example(study, capsys):
    import label_leak

    leak = label_leak.main()
    assert leak["lpntk"][0] > 0.99 > leak["lpntk"][1] + 0.2
    assert abs(leak["pntk"][0] - leak["pntk"][1]) < 0.25
    assert "pntk" in capsys.readouterr().out


def test_the_dynamics_example(study, tmp_path, capsys):
    import training_dynamics

    recorded, found = training_dynamics.main(tmp_path)
    assert recorded.losses_.shape == (15, 1797)
    assert found.actual.sum() > 0
    assert (tmp_path / "training_dynamics.png").exists()
    assert "never learned" in capsys.readouterr().out


def test_the_similarity_example(study, tmp_path, capsys):
    import train_test_similarity

    found = train_test_similarity.main(tmp_path)
    assert found.lpntk.helpful.shape == (450, 5)
    assert len(list(tmp_path.glob("*.png"))) == 2


@pytest.fixture
def gallery(monkeypatch):
    """Runs a script of the gallery; returns its names, with ``figures``, how many it drew."""
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: None)

    def run(name):
        before = len(plt.get_fignums())
        found = runpy.run_path(str(EXAMPLES / f"{name}.py"))
        return found | {"figures": len(plt.get_fignums()) - before}

    yield run
    plt.close("all")


def test_wrong_labels(gallery, capsys):
    found = gallery("wrong_labels")
    assert (found["labels"] == found["y"]).mean() > 0.98
    assert found["repaired"] > found["plain"] + 0.02
    assert found["figures"] == 2
    assert "right labels harmed" in capsys.readouterr().out


def test_class_entanglement(gallery, capsys):
    found = gallery("class_entanglement")
    assert found["here"] > max(found["chance"]) + 0.05
    assert found["seeds"] > found["here"]
    assert found["figures"] == 1
    assert "random rankings" in capsys.readouterr().out


def test_choose_architecture(gallery, capsys):
    found = gallery("choose_architecture")
    assert len(found["accuracy"]) == len(found["selector"].scores_) == 6
    assert found["P"].shape == (400, 4)
    assert found["figures"] == 1
    assert "rank correlation" in capsys.readouterr().out


def test_equal_training(monkeypatch):
    from sklearn_lpntk.datasets import load_digit_images

    monkeypatch.syspath_prepend(str(EXAMPLES))
    import equal_training

    X, y = (array[:200] for array in load_digit_images())
    found = equal_training.accuracies(X, y, range(1), net=lambda: equal_training.make_net(2))
    assert len(found) == 5
    assert all(len(values) == 1 for values in found.values())
