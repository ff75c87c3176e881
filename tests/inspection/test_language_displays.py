"""Pictures of answers and of tokens."""

import numpy as np
import pytest
from sklearn.utils import Bunch

plt = pytest.importorskip("matplotlib.pyplot")
plt.switch_backend("Agg")

from sklearn_lpntk.inspection import (  # noqa: E402
    ResponseDynamicsDisplay,
    TokenInfluenceDisplay,
)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


class Probe:
    records = [
        Bunch(step=0, log_proba={"chosen": np.array([-4.0, -6.0]), "own": np.array([-1.0])}),
        Bunch(step=5, log_proba={"chosen": np.array([-3.0, -5.0]), "own": np.array([-3.0])}),
    ]


class TestResponseDynamics:
    def test_changes_of_means(self):
        display = ResponseDynamicsDisplay.from_probe(Probe())
        assert [line.get_label() for line in display.lines_] == ["chosen", "own"]
        np.testing.assert_array_equal(display.lines_[0].get_ydata(), [0, 1])
        np.testing.assert_array_equal(display.lines_[1].get_xdata(), [0, 5])

    def test_values(self):
        display = ResponseDynamicsDisplay.from_probe(Probe(), relative=False, lw=3)
        np.testing.assert_array_equal(display.lines_[0].get_ydata(), [-5, -4])
        assert display.lines_[0].get_linewidth() == 3
        assert display.ax_.get_ylabel() == "log-probability (nats)"

    def test_on_axes_and_again(self):
        ax = plt.subplots()[1]
        display = ResponseDynamicsDisplay.from_probe(Probe(), ax=ax)
        assert display.ax_ is ax
        assert display.plot().ax_ is not ax

    def test_what_is_refused(self):
        with pytest.raises(ValueError, match="has no records"):
            ResponseDynamicsDisplay.from_probe(Bunch(records=[]))
        with pytest.raises(ValueError, match="must be a dict"):
            ResponseDynamicsDisplay.from_predictions([0], {})
        with pytest.raises(ValueError, match=r"log_proba\['a'\] must have shape \(1,\)"):
            ResponseDynamicsDisplay.from_predictions([0], {"a": [1, 2]})


class TestTokenInfluence:
    influence = Bunch(
        matrix=np.array([[1.0, -2.0, 0.5], [0.0, 0.25, 0.0]]),
        tokens=Bunch(observed=np.array([7, 8]), update=np.array([7, 9, 1])),
    )

    def test_tokens_on_both_axes(self):
        display = TokenInfluenceDisplay.from_influence(self.influence)
        assert [t.get_text() for t in display.ax_.get_xticklabels()] == ["7", "9", "1"]
        assert [t.get_text() for t in display.ax_.get_yticklabels()] == ["7", "8"]
        limit = np.quantile(np.abs(self.influence.matrix), 0.98)
        assert display.im_.get_clim() == (-limit, limit)
        nothing = TokenInfluenceDisplay.from_predictions([[0.0]], ["a"], ["b"])
        assert nothing.im_.get_clim() == (-1, 1)

    def test_words(self):
        tokenizer = Bunch(decode=lambda ids: f"w{ids[0]}")
        display = TokenInfluenceDisplay.from_influence(self.influence, tokenizer, cmap="PuOr")
        assert [t.get_text() for t in display.ax_.get_yticklabels()] == ["w7", "w8"]
        assert display.im_.get_cmap().name == "PuOr"

    def test_a_token_that_looks_like_a_formula(self):
        display = TokenInfluenceDisplay.from_predictions([[1.0]], ["$x_"], ["$"])
        display.figure_.canvas.draw()

    def test_what_is_refused(self):
        with pytest.raises(ValueError, match="a row for each of 1 observed"):
            TokenInfluenceDisplay.from_predictions(np.ones((2, 2)), ["a"], ["b", "c"])
