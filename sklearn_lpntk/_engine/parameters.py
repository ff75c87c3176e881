"""Which parameters count, and what a network must be for its kernel to mean something."""

import torch

# self-check, relative to the norm of the whole gradient; also the precisions allowed
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}


def select_parameters(module, parameters):
    """Names of the trainable parameters that count, narrowed by prefixes or a predicate."""
    trainable = [name for name, p in module.named_parameters() if p.requires_grad]
    if not list(module.parameters()):
        raise ValueError("The network has no parameters, so it has no tangent kernel.")
    if not trainable:
        raise ValueError(
            "All parameters of the network are frozen (requires_grad=False); "
            "unfreeze those that the kernel should use."
        )
    if parameters is None:
        return trainable
    if callable(parameters):
        chosen = [name for name in trainable if parameters(name)]
    else:
        prefixes = [parameters] if isinstance(parameters, str) else list(parameters)
        for prefix in prefixes:
            if not any(_has_prefix(name, prefix) for name in trainable):
                raise ValueError(
                    f"No trainable parameter is named {prefix!r} or lies below it; "
                    f"the trainable parameters are {trainable}."
                )
        chosen = [name for name in trainable if any(_has_prefix(name, p) for p in prefixes)]
    if not chosen:
        raise ValueError(f"parameters= selects none of the trainable parameters {trainable}.")
    return chosen


def _has_prefix(name, prefix):
    return name == prefix or name.startswith(prefix.rstrip(".") + ".")


def require_finite_state(module):
    """Refuse parameters and buffers with NaN or infinity."""
    tensors = [("parameter", *named) for named in module.named_parameters()]
    tensors += [("buffer", *named) for named in module.named_buffers()]
    for kind, name, tensor in tensors:
        if tensor.device.type == "meta" or not tensor.is_floating_point():
            continue
        if not torch.isfinite(tensor).all():
            raise ValueError(
                f"The network's {kind} {name!r} contains NaN or infinity (a diverged "
                "training?); its kernel would be meaningless."
            )


def refuse_layers(module):
    """Refuse what has no per-sample gradient, or not in a precision of ours."""
    for name, p in module.named_parameters():
        if isinstance(p, torch.nn.parameter.UninitializedParameter):
            raise ValueError(
                f"The parameter {name!r} is not initialised; run the network once on data."
            )
        if p.dtype not in TOLERANCE:
            raise ValueError(
                f"The parameter {name!r} is {p.dtype}; the kernel is computed in float32 or "
                "float64: convert the network with .float()."
            )
    for name, child in module.named_modules():
        if getattr(child, "scale_grad_by_freq", False):
            raise ValueError(
                f"The layer {name!r} has scale_grad_by_freq=True: its gradient depends on the "
                "rest of the batch, so there is no per-sample kernel; set it to False."
            )
