"""Reference values of the kernels, by quadrature and loops: `python -m tests.infinite.reference`.

Nothing here is shared with the library: the expectations are integrals over the plane of (u, v),
and convolutions are loops over positions. ReLU has a kink, so its plane is cut where it has: in
polar coordinates the radial integrals are known and the angular ones are smooth. For erf it is a
trapezoidal rule, whose error is about exp(-10 / (h**2 q)) for a step h and a variance q.
"""

import json
from itertools import product
from math import pi
from pathlib import Path

import numpy as np
from scipy.special import erf

PATH = Path(__file__).with_name("reference.json")
N_ANGLES = 80
SETTINGS = {"weight_std": 1.3, "bias_std": 0.2}
IMAGE_SHAPE = (2, 4, 3)
DENSE = [(a, depth) for a in ("relu", "erf") for depth in (1, 2, 10)]
CONV = [
    (a, depth, stride, readout)
    for a, depth, stride in (("relu", 1, 1), ("relu", 2, 1), ("relu", 2, 2), ("erf", 2, 1))
    for readout in ("flatten", "average")
]


def samples():
    """Ten samples, which are also images."""
    X = np.random.default_rng(0).normal(size=(10, np.prod(IMAGE_SHAPE)))
    X[7] = 2.5 * X[6]  # parallel
    X[8] = -X[6]
    X[9] = X[6] + 0.01 * X[5]  # near
    return X.round(3)


def relu_expectations(q1, q2, c):
    """E[relu(u) relu(v)] and E[step(u) step(v)] for variances q1, q2 and covariance c."""
    if q1 == 0 or q2 == 0:
        return 0.0, 0.0
    theta = np.arccos(np.clip(c / np.sqrt(q1 * q2), -1, 1))
    # u = sqrt(q1) r cos(phi), v = sqrt(q2) r cos(phi - theta); both positive between
    low, high = theta - pi / 2, pi / 2
    nodes, weights = np.polynomial.legendre.leggauss(N_ANGLES)
    phi = (low + high) / 2 + (high - low) / 2 * nodes
    weights = weights * (high - low) / 2
    value = 2 * np.sqrt(q1 * q2) * (weights * np.cos(phi) * np.cos(phi - theta)).sum() / (2 * pi)
    return value, weights.sum() / (2 * pi)


NODES = np.arange(-8.5, 8.5, 0.08)
WEIGHTS = np.exp(-(NODES**2) / 2) / np.exp(-(NODES**2) / 2).sum()


def erf_expectations(q1, q2, c):
    """E[erf(u) erf(v)] and the same of its derivative."""
    u = np.sqrt(q1) * NODES[:, None]
    v = c / np.sqrt(q1) * NODES[:, None] + np.sqrt(max(q2 - c * c / q1, 0)) * NODES
    slopes = 4 / pi * np.exp(-u * u - v * v)
    return WEIGHTS @ (erf(u) * erf(v)) @ WEIGHTS, WEIGHTS @ slopes @ WEIGHTS


EXPECTATIONS = {"relu": relu_expectations, "erf": erf_expectations}


def dense(x, z, activation, depth):
    """NTK and NNGP of two samples."""
    w2, b2 = SETTINGS["weight_std"] ** 2, SETTINGS["bias_std"] ** 2
    K = [w2 * np.mean(a * b) + b2 for a, b in ((x, x), (z, z), (x, z))]
    T = K[2]
    for _ in range(depth):
        value, slope = EXPECTATIONS[activation](*K)
        own = [EXPECTATIONS[activation](q, q, q)[0] for q in K[:2]]
        K = [w2 * e + b2 for e in (*own, value)]
        T = K[2] + w2 * T * slope
    return T, K[2]


def conv(x, z, activation, depth, stride, readout):
    """NTK and NNGP of two images, position by position."""
    w2, b2 = SETTINGS["weight_std"] ** 2, SETTINGS["bias_std"] ** 2
    x, z = x.reshape(IMAGE_SHAPE), z.reshape(IMAGE_SHAPE)
    size = IMAGE_SHAPE[1:]
    spots = list(product(range(size[0]), range(size[1])))
    sides = {"xx": (x, x), "zz": (z, z), "xz": (x, z)}
    K = {
        s: {(p, q): np.mean(a[:, *p] * b[:, *q]) for p in spots for q in spots}
        for s, (a, b) in sides.items()
    }
    K = {s: windowed(k, size, stride, w2, b2)[0] for s, k in K.items()}
    size = windowed({}, size, stride, w2, b2)[1]
    T = dict(K["xz"])
    for layer in range(depth):
        rule = EXPECTATIONS[activation]
        moments = {
            s: {(p, q): rule(K[s[0] * 2][p, p], K[s[1] * 2][q, q], c) for (p, q), c in k.items()}
            for s, k in K.items()
        }
        E = {s: {pq: m[0] for pq, m in k.items()} for s, k in moments.items()}
        TD = {pq: T[pq] * m[1] for pq, m in moments["xz"].items()}
        if layer == depth - 1:
            used = [(p, q) for p, q in TD if readout == "average" or p == q]
            nngp = w2 * np.mean([E["xz"][pq] for pq in used]) + b2
            return nngp + w2 * np.mean([TD[pq] for pq in used]), nngp
        K = {s: windowed(k, size, stride, w2, b2)[0] for s, k in E.items()}
        T_part, size = windowed(TD, size, stride, w2, 0.0)
        T = {pq: K["xz"][pq] + T_part[pq] for pq in T_part}
    raise AssertionError


def windowed(K, size, stride, w2, b2):
    """A 3 x 3 convolution of covariances between positions, padded to "same"; and the new size."""
    new = tuple(-(-n // stride) for n in size)
    before = [max((m - 1) * stride + 3 - n, 0) // 2 for n, m in zip(size, new, strict=True)]
    if not K:
        return {}, new
    out = {}
    spots = list(product(range(new[0]), range(new[1])))
    for p, q in product(spots, spots):
        total = 0.0
        for shift in product(range(3), range(3)):
            at = [tuple(r[k] * stride + shift[k] - before[k] for k in range(2)) for r in (p, q)]
            total += K.get(tuple(at), 0.0)
        out[p, q] = w2 * total / 9 + b2
    return out, new


def main():
    X = samples()
    pairs = [(i, j) for i in range(10) for j in range(i)]
    found = {}
    for key in DENSE:
        found[json.dumps(key)] = [dense(X[i], X[j], *key) for i, j in pairs]
    few = [(1, 0), (2, 1), (6, 5), (8, 6), (9, 6)]
    for key in CONV:
        found[json.dumps(key)] = [conv(X[i], X[j], *key) for i, j in few]
    PATH.write_text(json.dumps({"pairs": pairs, "few": few, "values": found}) + "\n")


if __name__ == "__main__":
    main()
