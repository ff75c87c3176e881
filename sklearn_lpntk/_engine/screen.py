"""Products in bfloat16 with a bound on their error: they decide what need not be computed.

bfloat16 keeps 8 bits, so rounding changes a number by at most ``u = 2^-8`` of itself. With both
sides and the result rounded, and sums in single precision, an inner product is off by at
most ``(1 + u)^3 - 1`` times the product of the norms, and a product of two of them by
twice that and its square. Where the device is no faster in bfloat16 there is no screen.
"""

import functools
import time

import torch

from .bounds import SLACK
from .factors import Dense, Lookup, Outer, alike
from .session import full_precision

UNIT = 2.0**-8
INNER = (1 + UNIT) ** 3 - 1
PRODUCT = (1 + INNER) ** 2 - 1
WORTH = 1.3  # how many times faster bfloat16 must be
TINY = 1e-20  # squared norms below this meet the end of the range


class Screen:
    """Upper bounds of tiles by products in bfloat16, in the units of other bounds."""

    def __init__(self, bounds):
        self.scale = bounds.scale
        self._slack = SLACK**0.5 * bounds.magnitudes

    @classmethod
    def of(cls, operator, bounds, wanted):
        """A screen where one is wanted and pays, else None."""
        source = operator._features
        usable = source.dtype == torch.float32 and TINY < bounds.scale < 1 / TINY
        return cls(bounds) if wanted and usable and _is_fast(source.device) else None

    def upper(self, left, right, rows, cols, sign):
        """Upper bounds of ``sign`` times the entries between the features of rows and cols."""
        out = left.v.new_zeros(left.n_samples, right.n_samples)
        errors = [self._slack[rows]], [self._slack[cols]]
        with full_precision(left.device):
            for key in (key for key in left.factors if key in right.factors):
                pair = alike([left.factors[key], right.factors[key]])
                found = _rough(*pair)
                if found is None:
                    pair[0].add_gram(pair[1], out)
                    continue
                product, error = found
                out += product
                for own, factor in zip(errors, pair):
                    own.append(error**0.5 * factor.magnitudes())
            out.mul_(sign).addmm_(torch.stack(errors[0], 1), torch.stack(errors[1]))
        return out.div_(self.scale)


def _rough(x, y):
    """A layer's part of the kernel in bfloat16, and its error in units of the magnitudes."""
    if isinstance(x, Dense):
        return _inner(x.phi, y.phi), INNER
    if isinstance(x, Outer) and not isinstance(x, Lookup) and len(x.a) == len(y.a) == 1:
        return _inner(x.a[0], y.a[0]) * _inner(x.g[0], y.g[0]), PRODUCT
    return None


def _inner(x, y):
    return (x.bfloat16() @ y.bfloat16().T).float()


@functools.cache
def _is_fast(device):
    """Whether a tile's product in bfloat16 is worth it, measured once."""
    x = torch.ones(512, 2048, device=device)

    # a processor's own time, so that others on the machine make no difference
    clock = time.thread_time if device.type == "cpu" else time.perf_counter

    def seconds(x):
        best = float("inf")
        for _ in range(4):
            _wait(device)
            start = clock()
            x @ x.T
            _wait(device)
            best = min(best, clock() - start)
        return best

    with full_precision(device):
        return seconds(x) > WORTH * seconds(x.bfloat16())


def _wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
