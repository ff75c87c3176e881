"""A negative step in one context: the two signs that are certain, and the step itself."""

import numpy as np
import pytest
import torch

from sklearn_lpntk.language import squeeze

V = 50


def cases(n, spread, seed=0):
    """Contexts of a spread, a token drawn in each, and steps over three orders of magnitude."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(spread * rng.normal(size=(n, V)))
    return (
        logits,
        torch.from_numpy(rng.integers(V, size=n)),
        torch.from_numpy(10 ** rng.uniform(-2, 1, n)),
    )


def fallen(before, after):
    return torch.softmax(after, -1) < torch.softmax(before, -1)


def test_certain_signs_in_20_000_cases():
    for k, spread in enumerate((0.3, 1, 3, 10)):
        z, negative, step = cases(5000, spread, seed=k)
        p, q = (torch.log_softmax(x, -1) for x in (z, squeeze(z, negative, step)))
        own = torch.arange(len(z))
        rounding = 1e-12  # of probabilities that are 1 to the last digit
        assert (q[own, negative] < p[own, negative] + rounding).all()
        others = z.clone()
        others[own, negative] = -torch.inf
        likeliest = others.argmax(1)
        assert (q[own, likeliest] > p[own, likeliest] - rounding).all()
        strict = (q[own, negative] < p[own, negative]) & (q[own, likeliest] > p[own, likeliest])
        assert strict.double().mean() > (0.9 if spread == 10 else 0.999)


def test_the_share_that_falls_rises_with_peakedness():
    shares = []
    for spread in (0.3, 1, 3, 10):
        z, negative, step = cases(2000, spread)
        shares.append(float(fallen(z, squeeze(z, negative, step)).double().mean()))
    assert shares == sorted(shares)
    assert shares[-1] > shares[0] + 0.2


def test_it_is_a_step_of_gradient_descent():
    z, negative, step = cases(7, 2.0)
    free = z.clone().requires_grad_()
    own = torch.log_softmax(free, 1)[torch.arange(7), negative]
    (own * step).sum().backward()  # the log-probability of the negative token is pushed down
    torch.testing.assert_close(squeeze(z, negative, step), z - free.grad, rtol=1e-12, atol=1e-12)


def test_one_context_and_many():
    z, negative, step = cases(4, 1.0)
    many = squeeze(z, negative, step)
    for i in range(4):
        torch.testing.assert_close(squeeze(z[i], int(negative[i]), float(step[i])), many[i])
    torch.testing.assert_close(squeeze(z, 3, 0.5), squeeze(z, torch.full((4,), 3), 0.5))
    assert squeeze(z.float(), 3, 0.5).dtype == torch.float32
    assert torch.equal(squeeze(z, negative, 0), z)


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        (([1.0, 2.0], 0, 1.0), TypeError, "floating tensor"),
        ((torch.tensor([1, 2]), 0, 1.0), TypeError, "floating tensor"),
        ((torch.zeros(2, 3, 4), 0, 1.0), ValueError, "must have shape"),
        ((torch.zeros(1), 0, 1.0), ValueError, "V > 1"),
        ((torch.zeros(3), 3, 1.0), ValueError, "tokens from 0 to 2"),
        ((torch.zeros(3), -1, 1.0), ValueError, "tokens from 0 to 2"),
        ((torch.zeros(3), 1.5, 1.0), ValueError, "tokens from 0 to 2"),
        ((torch.zeros(3), 1, -1.0), ValueError, "at least 0"),
        ((torch.zeros(3), 1, float("nan")), ValueError, "at least 0"),
        ((torch.zeros(2, 3), torch.tensor([0, 1, 2]), 1.0), ValueError, "negative must be one"),
        ((torch.zeros(2, 3), 0, torch.ones(3)), ValueError, "step must be one"),
    ],
)
def test_what_is_refused(args, error, message):
    with pytest.raises(error, match=message):
        squeeze(*args)
