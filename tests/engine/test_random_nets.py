"""Random networks, their sizes often those of batches, give the oracle's kernel."""

import pytest

from ..random_nets import compare

SEEDS = range(120)


@pytest.mark.parametrize("seed", SEEDS)
def test_kernel_equals_the_oracle(seed):
    outcome = compare(seed)
    assert outcome.raised is None, outcome
    assert outcome.error <= 1e-10, outcome
