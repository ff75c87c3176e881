"""Which parameters count, and what a network must be for its kernel to mean something."""

import copy
import warnings
from collections.abc import Iterable

import torch

from .._runtime.turns import exclusive
from .._runtime.views import drop_wrapper

# of the self-check, relative to the norm of the whole gradient; also the precisions allowed
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}


def select_parameters(module, parameters):
    """Names of the trainable parameters that count, narrowed by prefixes or a predicate."""
    with exclusive(module):  # another thread may have borrowed, and frozen it
        trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not list(module.parameters()):
        raise ValueError(
            "The network has no parameters, so it has no tangent kernel. (A quantised one keeps "
            "none: pass the network as it was before.)"
        )
    if not trainable:
        raise ValueError(
            "All parameters of the network are frozen (requires_grad=False); "
            "unfreeze those that the kernel should use."
        )
    if parameters is None:
        return list(trainable)
    # a tied parameter has several names: any of them selects it
    names = {name: set() for name in trainable}
    first = {id(p): name for name, p in trainable.items()}
    for alias, p in module.named_parameters(remove_duplicate=False):
        if id(p) in first:
            names[first[id(p)]].add(alias)
    chosen = [name for name, own in names.items() if any(map(_selector(parameters, names), own))]
    if not chosen:
        raise ValueError(f"parameters= selects none of the trainable parameters {list(trainable)}.")
    return chosen


def _selector(parameters, names):
    if callable(parameters):
        return parameters
    prefixes = [parameters] if isinstance(parameters, str) else parameters
    if not isinstance(prefixes, Iterable) or not all(isinstance(p, str) for p in prefixes):
        raise TypeError(
            "parameters must be a name prefix, a sequence of them, or a predicate on the name; got "
            f"{parameters!r}."
        )
    for prefix in prefixes:
        if not any(_has_prefix(alias, prefix) for own in names.values() for alias in own):
            raise ValueError(
                f"No trainable parameter is named {prefix!r} or lies below it; "
                f"the trainable parameters are {list(names)}."
            )
    return lambda alias: any(_has_prefix(alias, prefix) for prefix in prefixes)


def _has_prefix(name, prefix):
    return name == prefix or name.startswith(prefix.rstrip(".") + ".")


def require_finite_state(module):
    """Refuse parameters with NaN or infinity, and buffers with NaN.

    A buffer may hold infinity: attention masks do.
    """
    for name, p in module.named_parameters():
        if not is_finite(p):
            raise ValueError(
                f"The network's parameter {name!r} contains NaN or infinity (a diverged "
                "training?); its kernel would be meaningless."
            )
    for name, b in module.named_buffers():
        if b.device.type != "meta" and b.is_floating_point() and torch.isnan(b).any():
            raise ValueError(
                f"The network's buffer {name!r} contains NaN (a diverged training?); "
                "its kernel would be meaningless."
            )


def is_finite(tensor):
    """Whether it holds no NaN and no infinity: one pass, no temporary."""
    if tensor.device.type == "meta" or not tensor.numel():
        return True
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return all(torch.isfinite(extreme) for extreme in tensor.aminmax())  # NaN survives in these


def accepted(module):
    """The module, or a copy in single precision of one in bfloat16.

    Refused is what has no per-sample gradient, or not in a precision of ours.
    """
    module = _in_single_precision(module)
    if any(isinstance(child, torch.jit.ScriptModule) for child in module.modules()):
        raise ValueError(
            "The network is or contains a ScriptModule, whose layers can't be observed; pass the "
            "module that was scripted or traced."
        )
    dtypes = set()
    for name, p in module.named_parameters():
        _refuse_parameter(name, p)
        dtypes.add(p.dtype)
    if len(dtypes) > 1:
        raise ValueError(
            f"The network's parameters have several dtypes {sorted(map(str, dtypes))}; convert "
            "it with .float() or .double()."
        )
    _refuse_layers(module)
    return module


def _refuse_layers(module):
    owners = {}
    for name, child in module.named_modules():
        for p in child._parameters.values():
            owners.setdefault(id(p), []).append(name)
    for name, child in module.named_modules():
        if getattr(child, "scale_grad_by_freq", False):
            raise ValueError(
                f"The layer {name!r} has scale_grad_by_freq=True: its gradient depends on the "
                "rest of the batch, so there is no per-sample kernel; set it to False."
            )
        renormalised = getattr(child, "max_norm", None) is not None
        if renormalised and len(owners.get(id(getattr(child, "weight", None)), [])) > 1:
            raise ValueError(
                f"The layer {name!r} has max_norm= and a weight tied to another layer: the "
                "other layer's output then depends on which rows were looked up before. Untie "
                "the weight or set max_norm=None."
            )


def _in_single_precision(module):
    dtypes = {p.dtype for p in module.parameters()}
    if torch.bfloat16 not in dtypes or not dtypes <= {torch.bfloat16, torch.float32}:
        return module
    warnings.warn(
        "The network's parameters are in bfloat16, in which sums of gradients lose most digits: "
        "its kernel is computed in a copy of it in float32. Pass such a copy, "
        "copy.deepcopy(net).float(), to make it only once.",
        UserWarning,
        stacklevel=4,
    )
    with exclusive(module):
        module = copy.deepcopy(module).float()
    for child in module.modules():
        drop_wrapper(child)
    return module


def _refuse_parameter(name, p):
    if isinstance(p, torch.nn.parameter.UninitializedParameter):
        raise ValueError(
            f"The parameter {name!r} is not initialised; run the network once on data."
        )
    if p.dtype not in TOLERANCE:
        remedy = "convert the network with .float()"
        if p.is_complex():
            remedy = "write the network with real parameters, two for each complex one"
        raise ValueError(
            f"The parameter {name!r} is {p.dtype}; the kernel is computed in float32 or float64: "
            f"{remedy}."
        )
    if p.is_inference():
        raise ValueError(
            f"The parameter {name!r} was created under torch.inference_mode, where nothing can "
            "be differentiated; build the network outside of it."
        )
