"""Operations by name: what torch calls the functions and methods that a network uses."""

import functools

ALIASES = {
    "__add__": "add", "__radd__": "add", "__iadd__": "add",
    "__sub__": "sub", "subtract": "sub", "__rsub__": "rsub", "__isub__": "sub",
    "__mul__": "mul", "multiply": "mul", "__rmul__": "mul", "__imul__": "mul",
    "__truediv__": "div", "true_divide": "div", "divide": "div", "__rtruediv__": "div",
    "__idiv__": "div", "__itruediv__": "div", "__rdiv__": "div",
    "__pow__": "pow", "__rpow__": "pow", "__ipow__": "pow",
    "__matmul__": "matmul", "__rmatmul__": "rmatmul", "__neg__": "neg", "negative": "neg",
    "__and__": "bitwise_and", "__or__": "bitwise_or", "__invert__": "bitwise_not",
    "__eq__": "eq", "__ne__": "ne", "__lt__": "lt", "__le__": "le", "__gt__": "gt", "__ge__": "ge",
}  # fmt: skip

# entry by entry, their tensors broadcast against each other
ARITHMETIC = """add sub rsub mul div pow where addcmul addcdiv lerp maximum minimum atan2 fmod
    remainder float_power floor_divide hypot masked_fill clamp clip clamp_min clamp_max copysign
    logaddexp xlogy"""
ELEMENTWISE = (
    ARITHMETIC
    + """ neg abs exp exp2 log log2 log10 log1p expm1 sqrt rsqrt sin cos tan asin acos atan
    sinh cosh tanh asinh acosh atanh sigmoid logit relu relu6 leaky_relu rrelu elu selu celu
    gelu silu mish softplus softsign tanhshrink hardshrink softshrink hardtanh hardswish hardsigmoid
    logsigmoid threshold dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout
    feature_alpha_dropout clone contiguous to float double half bfloat16 int long bool type type_as
    detach requires_grad_ sign sgn round floor ceil trunc frac square reciprocal erf erfc sinc
    positive eq ne lt le gt ge logical_and logical_or logical_not logical_xor bitwise_and bitwise_or
    bitwise_not isnan isinf isfinite nan_to_num zeros_like ones_like full_like empty_like rand_like
    randn_like zero fill copy data real absolute signbit heaviside special_expit"""
)
# what tells something of a tensor and makes none
INFORMATION = """shape size dim ndim ndimension numel nelement dtype device layout is_nested is_cuda
    is_cpu is_sparse is_quantized is_meta is_mkldnn requires_grad is_leaf is_contiguous itemsize
    is_floating_point is_complex element_size stride storage_offset data_ptr _version is_inference
    item tolist grad_fn output_nr is_same_size _is_view __len__ __bool__ __int__ __float__ __index__
    __repr__ __hash__ __format__"""
# of whatever they are given, the size or the dtype counts
CREATED = {"zeros", "ones", "empty", "eye", "arange", "linspace"} | {
    f"new_{kind}" for kind in ("zeros", "ones", "empty", "full")
}
# of the same axis of samples, the first, whatever becomes of the others
DIMENSION_FREE = """group_norm instance_norm local_response_norm interpolate upsample
    pixel_shuffle pixel_unshuffle channel_shuffle embedding_bag"""

# what networks are made of, and whose labels nobody doubts
CORE = (
    ELEMENTWISE
    + """ view reshape flatten unflatten squeeze unsqueeze transpose swapaxes t T mT permute movedim
    expand sum mean amax amin softmax log_softmax logsumexp chunk split unbind select narrow cat
    stack matmul rmatmul bmm mm addmm baddbmm einsum linear pad embedding layer_norm
    scaled_dot_product_attention rms_norm group_norm instance_norm batch_norm prelu
    conv1d conv2d conv3d
    conv_transpose1d conv_transpose2d conv_transpose3d max_pool1d max_pool2d max_pool3d avg_pool1d
    avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d interpolate embedding_bag
    __getitem__ any all max min cpu cuda gather cross_entropy nll_loss """
)
# torch's own take their arguments in another order than those of torch.nn.functional
_OTHER_ORDER = {"embedding", "embedding_bag", "batch_norm", "instance_norm"}


@functools.cache
def name_of(function):
    """The name of an operation, the same for a function, a method and an operator in place."""
    name, module = getattr(function, "__name__", ""), getattr(function, "__module__", None) or ""
    if module.startswith("torch._ops"):
        return f"{module}.{name}"  # of any library
    if name in _OTHER_ORDER and module == "torch":
        return f"torch.{name}"
    if name == "__get__":
        return getattr(function.__self__, "__name__", "")
    if name.startswith("__"):
        return ALIASES.get(name, name)
    if name.endswith("_") and not name.endswith("__") and name != "requires_grad_":
        name = name[:-1]
    return ALIASES.get(name, name)


@functools.cache
def is_in_place(function):
    """Whether an operation writes to its first argument."""
    name = getattr(function, "__name__", "")
    return (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")
