"""Expectations of nonlinearities under a centred Gaussian: one class each, torch only.

Of (u, v) with variances q1, q2 and covariance c: ``E[s(u) s(v)]`` and ``E[s'(u) s'(v)]``; and the
same where u = v, where the general formulas are ill-conditioned.
"""

import math

import torch


class ReLU:
    """Arc-cosine formulas of degree 1 and 0 (Cho and Saul, 2009)."""

    def moments(self, c, q1, q2):
        scale_1, scale_2 = q1.sqrt(), q2.sqrt()
        cos = c * _inverse(scale_1) * _inverse(scale_2)
        cos.clamp_(-1, 1)
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
        # n1 n2 - 4 c^2, without the difference of two large numbers
        scale = q1.sqrt() * q2.sqrt()
        angle = ((scale - c) * (scale + c)).clamp_(min=0)
        slope = (2 * (q1 + q2) + 1 + 4 * angle).rsqrt_().mul_(4 / math.pi)
        return product, slope

    def own_moments(self, q):
        return 2 / math.pi * (2 * q / (1 + 2 * q)).asin(), 4 / math.pi * (1 + 4 * q).rsqrt()


def _inverse(scale):
    """1 / scale; 0 where a sample is all zeros, which is then at a right angle to all others."""
    return torch.where(scale > 0, 1 / scale, 0)


ACTIVATIONS = {"relu": ReLU(), "erf": Erf()}
