"""Fused operations as equal compositions of operations that have rules.

Each entry takes the operation's arguments and returns a function that does the same under the
recorder, or None where it is left as it is.
"""

import types

import torch
from torch import Tensor
from torch.nn import functional as F

COMPOSED = {}


def _composes(names):
    def register(function):
        COMPOSED.update(dict.fromkeys(names.split(), function))
        return function

    return register


# -- attention: Python, opened by a copy that does not ask for modes -----------------------


def opened(function):
    """The function with globals whose ``has_torch_function`` answers no."""
    blind = {
        key: (lambda *args: False)
        for key in function.__globals__
        if key.startswith("has_torch_function")
    }
    copy = types.FunctionType(
        function.__code__,
        {**function.__globals__, **blind},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


_ATTENTION = opened(F.multi_head_attention_forward)


@_composes("multi_head_attention_forward")
def _attention(*args, **kwargs):
    return lambda: _ATTENTION(*args, **kwargs)


# -- other operations with weights ----------------------------------------------------------


def _channels(x):
    return (-1,) + (1,) * (x.ndim - 2)


@_composes("prelu")
def _prelu(input, weight):
    def composition():
        slope = weight.view(_channels(input)) if input.ndim > 1 else weight
        return torch.where(input > 0, input, input * slope)

    return composition


@_composes("bilinear")
def _bilinear(input1, input2, weight, bias=None):
    def composition():
        pairs = (input1.unsqueeze(-1) * input2.unsqueeze(-2)).flatten(-2)
        return F.linear(pairs, weight.flatten(1), bias)

    return composition


@_composes("matmul")
def _product(a, b):
    if b.ndim == 1 and a.ndim > 1:
        return lambda: F.linear(a, b.unsqueeze(0)).squeeze(-1)
    return None


@_composes("rmatmul")
def _reversed_product(b, a):
    return lambda: torch.matmul(a, b)


# -- recurrent layers ------------------------------------------------------------------------


def _lstm_step(gates_x, state, weights):
    h, c = state
    i, f, g, o = (gates_x + F.linear(h, weights["hh"], weights.get("b_hh"))).chunk(4, -1)
    c = torch.addcmul(torch.sigmoid(f) * c, torch.sigmoid(i), torch.tanh(g))
    h = torch.sigmoid(o) * torch.tanh(c)
    return (F.linear(h, weights["hr"]) if "hr" in weights else h, c)


def _gru_step(gates_x, state, weights):
    (h,) = state
    r_x, z_x, n_x = gates_x.chunk(3, -1)
    r_h, z_h, n_h = F.linear(h, weights["hh"], weights.get("b_hh")).chunk(3, -1)
    r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
    n = torch.tanh(n_x + r * n_h)
    return (n + z * (h - n),)


def _simple_step(activation):
    def step(gates_x, state, weights):
        return (activation(gates_x + F.linear(state[0], weights["hh"], weights.get("b_hh"))),)

    return step


_STEPS = {
    "lstm": _lstm_step,
    "gru": _gru_step,
    "rnn_tanh": _simple_step(torch.tanh),
    "rnn_relu": _simple_step(torch.relu),
}


def _direction(step, x, state, weights, backwards):
    """Outputs (T, n, H) of one layer in one direction, and its last state."""
    outputs = []
    gates = F.linear(x, weights["ih"], weights.get("b_ih")).unbind(0)
    for gates_x in reversed(gates) if backwards else gates:
        state = step(gates_x, state, weights)
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if backwards else outputs), state


def _packed_direction(step, x, sizes, start, weights, backwards):
    """The same for packed rows: at each time the first so many samples, which are sorted."""
    gates = F.linear(x, weights["ih"], weights.get("b_ih")).split(sizes)
    outputs, ended, state = [], [], tuple(s[:0] for s in start)
    if not backwards:
        state = start
    for gates_x in reversed(gates) if backwards else gates:
        rows, before = len(gates_x), len(state[0])
        if rows < before:
            ended.append(tuple(s[rows:] for s in state))
            state = tuple(s[:rows] for s in state)
        parts = [step(gates_x[:before], state, weights)] if before else []
        if rows > before:  # these begin here, backwards
            fresh = tuple(s[before:rows] for s in start)
            parts.append(step(gates_x[before:], fresh, weights))
        state = tuple(map(_cat, zip(*parts)))
        outputs.append(state[0])
    state = tuple(map(_cat, zip(state, *ended[::-1])))
    return torch.cat(outputs[::-1] if backwards else outputs), state


def _cat(parts):
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _named(flat, has_biases, projected):
    """The weights of every layer and direction, by what they do."""
    names = ["ih", "hh", *(["b_ih", "b_hh"] if has_biases else []), *(["hr"] if projected else [])]
    return [
        dict(zip(names, flat[i : i + len(names)])) for i in range(0, len(flat), len(names))
    ]  # fmt: skip


def _recurrent(kind):
    def compose(input, *args):
        packed = not isinstance(args[2], bool)
        sizes, args = (args[0].tolist(), (*args[1:], False)) if packed else (None, args)
        hx, flat, has_biases, num_layers, dropout, train, bidirectional, first = args
        if train and dropout:
            return None  # random numbers
        states = tuple(hx) if kind == "lstm" else (hx,)
        projected = kind == "lstm" and states[0].shape[-1] != states[1].shape[-1]
        layers, directions = _named(flat, has_biases, projected), 1 + bidirectional

        def run(x, at):
            start, weights, backwards = tuple(s[at] for s in states), layers[at], at % directions
            if sizes is None:
                return _direction(_STEPS[kind], x, start, weights, backwards)
            return _packed_direction(_STEPS[kind], x, sizes, start, weights, backwards)

        def composition():
            x, ends = input.transpose(0, 1) if first else input, []
            for k in range(num_layers):
                found = [run(x, k * directions + d) for d in range(directions)]
                ends += [end for _, end in found]
                x = found[0][0] if directions == 1 else torch.cat([out for out, _ in found], -1)
            out = x.transpose(0, 1) if first else x
            return (out, *(torch.stack(parts) for parts in zip(*ends)))

        return composition

    return compose


def _cell(kind):
    def compose(input, hx, w_ih, w_hh, b_ih=None, b_hh=None):
        weights = {"ih": w_ih, "hh": w_hh, "b_ih": b_ih, "b_hh": b_hh}
        state = tuple(hx) if not isinstance(hx, Tensor) else (hx,)

        def composition():
            end = _STEPS[kind](F.linear(input, w_ih, b_ih), state, weights)
            return end if kind == "lstm" else end[0]

        return composition

    return compose


for _kind in _STEPS:
    _composes(_kind)(_recurrent(_kind))
    _composes(_kind + "_cell")(_cell(_kind))
