"""entk_convergence: the distance by hand, and the rates of a network where they are known."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_lpntk.dynamics import entk_convergence
from sklearn_lpntk.dynamics._convergence import entk_distance
from sklearn_lpntk.kernels import entk_kernel, lpntk_kernel


def make_module(width):
    """One hidden layer, last weights of variance 1 / width, as the theorem has it."""
    net = nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 4, bias=False)).double()
    nn.init.normal_(net[2].weight, std=width**-0.5)
    return net


def problem():
    torch.manual_seed(0)
    return torch.randn(10, 5).double(), torch.arange(10) % 4


def test_the_distance_is_that_of_equation_4():
    X, y = problem()
    net = make_module(7)
    K, kappa = entk_kernel(net, X), lpntk_kernel(net, X, y)
    found = entk_distance(K, y.numpy())
    for n, m in np.ndindex(10, 10):
        expected = np.linalg.norm(kappa[n, m] * np.eye(4) - K[n, m])
        np.testing.assert_allclose(found[n, m], expected)


def test_only_equal_labels_reach_the_rate():
    X, y = problem()
    result = entk_convergence(make_module, X, y, [32, 128, 512], n_repeats=6, random_state=0)
    assert result.same_label.shape == result.different_label.shape == (3, 6)
    # hidden units share no parameters here: their part of the kernel fluctuates by width ** -0.5,
    # and equation 4 divides by another width ** 0.5
    assert abs(result.exponent_same_label + 1) < 0.15
    # for different labels the last layer's part is (1 - (K - 4) / K) g . g', of the order of width
    assert abs(result.exponent_different_label - 0.5) < 0.15
    again = entk_convergence(make_module, X, y, [32, 128, 512], n_repeats=6, random_state=0)
    np.testing.assert_array_equal(result.same_label, again.same_label)


def test_the_global_generator_stays():
    X, y = problem()
    state = torch.get_rng_state()
    entk_convergence(make_module, X, y, [4, 8], n_repeats=1)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("widths", "y", "match"),
    [
        ([8], None, "two different ints"),
        ([8, 8], None, "two different ints"),
        ([8, 0], None, "Each of widths must be an int of at least 1"),
        ([4.7, 8.2], None, "Each of widths must be an int"),
        (8, None, "two different ints"),
        ([4, 8], torch.arange(10) % 3 - 1, "labels must be logit columns"),
        ([4, 8], torch.arange(10) % 5, "labels must be logit columns"),
        ([4, 8], torch.zeros(10), "y must have a pair"),
        ([4, 8], torch.arange(10), "y must have a pair"),
    ],
)
def test_errors(widths, y, match):
    X, labels = problem()
    with pytest.raises(ValueError, match=match):
        entk_convergence(make_module, X, labels if y is None else y, widths)


def test_one_logit():
    X, y = problem()

    def make(width):
        return nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, 1)).double()

    with pytest.raises(ValueError, match="a network with one logit"):
        entk_convergence(make, X, y % 2, [4, 8])
