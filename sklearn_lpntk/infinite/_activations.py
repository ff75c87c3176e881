"""Expectations of nonlinearities under a centred Gaussian: one class each, torch only.

Of (u, v) with variances q1, q2 and covariance c: ``E[s(u) s(v)]`` and ``E[s'(u) s'(v)]``; and the
same where u = v, where the general formulas are ill-conditioned.
"""

import math

import torch
from torch.nn import functional as F

# Multiples of the same sample have a cosine of 1 but for rounding, and the angle is off by the root
# of that: so many units of rounding count as none.
SNAP = 16


class ReLU:
    """Arc-cosine formulas of degree 1 and 0 (Cho and Saul, 2009)."""

    def moments(self, c, q1, q2):
        scale_1, scale_2 = q1.sqrt(), q2.sqrt()
        opposite = c * -_inverse(scale_1) * _inverse(scale_2)
        nearly = _rounding(c) - 1
        cos = F.threshold_(opposite, nearly, -1.0).neg_()  # cut where it is nearly 1
        F.threshold_(cos, nearly, -1.0)
        # not 1 - cos**2: here angle and sine stay consistent where cos is near 1
        sin = (1 - cos).mul_(1 + cos).sqrt_()
        angle = torch.acos(-cos)  # pi less the angle between u and v
        product = sin.addcmul_(angle, cos).mul_(scale_1).mul_(scale_2).mul_(0.5 / math.pi)
        return product, angle.mul_(0.5 / math.pi)

    def own_moments(self, q):
        return q / 2, torch.full_like(q, 0.5)


class Erf:
    """Formulas of Williams (1997)."""

    def moments(self, c, q1, q2):
        n1, n2 = 1 + 2 * q1, 1 + 2 * q2
        product = (2 * c * n1.rsqrt() * n2.rsqrt()).clamp_(-1, 1).asin_().mul_(2 / math.pi)
        # root of n1 n2 - 4 c^2, without the difference of two large numbers and without overflow
        scale = q1.sqrt() * q2.sqrt()
        below, above = scale - c, (scale + c).clamp_(min=0).sqrt_()
        below.masked_fill_(below < _rounding(c) * scale, 0).sqrt_()
        slope = torch.hypot((2 * (q1 + q2) + 1).sqrt(), below.mul_(above).mul_(2))
        return product, slope.reciprocal_().mul_(4 / math.pi)

    def own_moments(self, q):
        return 2 / math.pi * (2 * q / (1 + 2 * q)).asin(), 4 / math.pi * (1 + 4 * q).rsqrt()


def _rounding(c):
    return SNAP * torch.finfo(c.dtype).eps


def _inverse(scale):
    """1 / scale; 0 where a sample is all zeros, which is then at a right angle to all others."""
    return torch.where(scale > 0, 1 / scale, 0)


ACTIVATIONS = {"relu": ReLU(), "erf": Erf()}
