"""Features as the bytes of a file, which is mapped into memory and not read.

An index in JSON says what factors there are and where each tensor begins; the tensors follow.
"""

import json
import mmap

import torch

from .factors import Dense, Outer
from .features import Features, Spec
from .sparse import Lookup, Unit
from .tied import Tied

MAGIC = b"lpntk-shard-2\n"
ALIGNED = 64  # bytes
KINDS = {kind.__name__: kind for kind in (Dense, Outer, Lookup, Unit, Tied)}


def pack(features):
    """The bytes of a shard."""
    tensors, index = [], []

    def add(tensor):
        tensors.append(tensor.detach().cpu().contiguous())
        return len(tensors) - 1

    for key, factor in features.factors.items():
        parts = [add(t) for t in factor.tensors]
        index.append([key, type(factor).__name__, parts, list(factor.settings)])
    layout, offset = [], 0
    for tensor in tensors:
        layout.append([_name(tensor.dtype), list(tensor.shape), offset])
        offset += -(-tensor.numel() * tensor.element_size() // ALIGNED) * ALIGNED
    spec = features.spec
    numbers = [spec.n_samples, spec.n_cotangents, spec.n_logits, _name(spec.dtype)]
    head = {"spec": numbers, "factors": index, "tensors": layout, "structure": features.structure}
    head = json.dumps(head).encode()
    out = bytearray(MAGIC + len(head).to_bytes(8, "little") + head)
    out.extend(bytes(-len(out) % ALIGNED))
    for tensor in tensors:
        raw = tensor.reshape(-1).view(torch.uint8).numpy()
        out += memoryview(raw)
        out.extend(bytes(-len(raw) % ALIGNED))
    return out


def unpack(file):
    """Features whose tensors are the mapped file; written to, they change in memory only."""
    with open(file, "rb") as stream:
        data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    start = len(MAGIC) + 8
    length = int.from_bytes(data[len(MAGIC) : start], "little")
    head = json.loads(data[start : start + length])
    start += length + -(start + length) % ALIGNED

    def tensor(number):
        dtype, shape, offset = head["tensors"][number]
        dtype, count = getattr(torch, dtype), int(torch.Size(shape).numel())
        if count == 0:
            return torch.empty(shape, dtype=dtype)
        flat = torch.frombuffer(data, dtype=dtype, count=count, offset=start + offset)
        return flat.reshape(shape)

    factors = {
        key: KINDS[kind](*(tensor(t) for t in parts), *settings)
        for key, kind, parts, settings in head["factors"]
    }
    *numbers, dtype = head["spec"]
    spec = Spec(*numbers, getattr(torch, dtype), torch.device("cpu"))
    return Features(factors, spec, head["structure"])


def _name(dtype):
    return str(dtype).removeprefix("torch.")
