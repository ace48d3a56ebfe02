"""Backward passes of compiled graphs that are finite wherever their loss is: read off the operations they are made of.

What torch.compile makes is one node of autograd, with a graph of its own behind it. That graph is kept for compiled
autograd, which may want to inline it, also where the code came out of the cache.
"""

import weakref
from typing import Any

_SHAPES = frozenset((
    "_unsafe_view", "alias", "arange", "cat", "clone", "constant_pad_nd", "convert_element_type", "copy", "detach",
    "empty", "expand", "flip", "full", "full_like", "gather", "getitem", "index", "index_put", "index_select", "iota",
    "ones_like", "permute", "repeat", "reshape", "roll", "scalar_tensor", "scatter", "scatter_add", "select",
    "select_backward", "select_scatter", "slice", "slice_backward", "slice_scatter", "split", "split_with_sizes",
    "squeeze", "stack", "t", "transpose", "unbind", "unsqueeze", "view", "zeros_like", "_to_copy", "lift_fresh_copy",
))  # fmt: skip
_CHOICES = frozenset((
    "bitwise_and", "bitwise_not", "bitwise_or", "eq", "ge", "gt", "le", "logical_and", "logical_not", "logical_or",
    "lt", "masked_fill", "ne", "sign", "tril", "triu", "where",
))  # fmt: skip
_SUMS = frozenset((
    "abs", "add", "addmm", "amax", "baddbmm", "bmm", "clamp", "clamp_max", "clamp_min", "convolution",
    "convolution_backward", "embedding", "embedding_dense_backward", "fma", "max", "maximum", "mean", "minimum", "mm",
    "mul", "mv", "neg", "rsub", "sub", "sum",
))  # fmt: skip
_LAYERS = frozenset((
    "_adaptive_avg_pool2d", "_adaptive_avg_pool2d_backward", "_log_softmax", "_log_softmax_backward_data",
    "_low_memory_max_pool_offsets_to_indices", "_low_memory_max_pool_with_offsets",
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward",
    "_softmax", "_softmax_backward_data", "avg_pool2d", "avg_pool2d_backward", "bernoulli", "elu_backward", "erf",
    "gelu", "gelu_backward", "hardsigmoid_backward", "hardswish_backward", "hardtanh_backward", "inductor_lookup_seed",
    "inductor_random", "inductor_seeds", "leaky_relu_backward", "log_sigmoid_backward", "max_pool2d_with_indices",
    "max_pool2d_with_indices_backward", "mish_backward", "native_batch_norm_backward", "native_dropout",
    "native_dropout_backward", "native_group_norm_backward", "native_layer_norm", "native_layer_norm_backward",
    "rand", "relu", "sigmoid", "sigmoid_backward", "silu_backward", "softplus_backward", "tanh", "tanh_backward",
    "threshold_backward", "var_mean",
))  # fmt: skip
BOUNDED = _SHAPES | _CHOICES | _SUMS | _LAYERS
"""Names of operations, of a backward pass or of what it needs of the forward, that stay finite and moderate."""
SAVED = BOUNDED - {"detach"} | {"div", "primals", "rsqrt", "tangents"}
"""And of what may be kept for it: parameters, gradients from behind, a softmax (its own backward pass has no division),
and the scale of a norm, which adds an epsilon. What is only said to be detached may be anything."""
MOST_OPERATIONS = 2048
"""Looked at, once for each graph, a microsecond each."""

_known: "weakref.WeakKeyDictionary[Any, bool]" = weakref.WeakKeyDictionary()


def bounded_inside(node: Any) -> bool:
    """Whether ``node`` of autograd is a compiled graph whose backward pass is made of such operations alone.

    ``False`` for every other node, and where this torch does not keep the graph. Private: ``_forward_cls`` of a node,
    and ``_lazy_backward_info`` of it; what has neither is watched at each step.
    """
    compiled = getattr(node, "_forward_cls", None)
    kept = getattr(compiled, "_lazy_backward_info", None)
    if kept is None:
        return False
    found = _known.get(compiled)
    if found is None:
        found = _known[compiled] = _all_bounded(kept)
    return found


def _all_bounded(kept: Any) -> bool:
    from_cache = getattr(kept, "bw_module_fn", None)
    module = getattr(kept, "bw_module", None) or (from_cache() if from_cache is not None else None)
    operations = list(getattr(getattr(module, "graph", None), "nodes", ()))
    return 0 < len(operations) <= MOST_OPERATIONS and all(_bounded(operation) for operation in operations)


def _bounded(operation: Any) -> bool:
    """Whether this line of the graph is; its inputs have the names of what they were in the forward."""
    if operation.op in ("output", "get_attr"):  # what it returns, and the constants in it
        return True
    if operation.op == "placeholder":
        return _without_number(operation.name) in SAVED
    if operation.op != "call_function":
        return False
    name = operation.target.__name__.partition(".")[0]
    if name == "div":
        return _is_number(operation.args[1]) and operation.args[1] != 0
    if name == "pow":
        return _is_number(operation.args[1]) and operation.args[1] >= 1
    if name == "exp":
        return _falls_away(operation.args[0])
    if name == "rsqrt":
        return any(_is_number(added) and added > 0 for added in _inputs(operation.args[0], "add"))
    return name in BOUNDED


def _falls_away(exponent: Any) -> bool:
    """Whether it is minus a square, as in the derivative of a GELU: what ``exp`` makes of it is at most 1."""
    factors = _inputs(exponent, "mul")
    square = _inputs(factors[0], "mul") if len(factors) == 2 and _is_number(factors[1]) and factors[1] <= 0 else []
    return len(square) == 2 and square[0] is square[1]


def _inputs(value: Any, name: str) -> list[Any]:
    """What ``name`` made ``value`` of in this graph; nothing if something else did."""
    made = getattr(value, "op", "") == "call_function" and value.target.__name__.partition(".")[0] == name
    return list(value.args) if made else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _without_number(name: str) -> str:
    """``addmm_2`` is the third ``addmm`` of the forward."""
    stem, _, number = name.rpartition("_")
    return stem if stem and number.isdigit() else name
