"""Losses whose gradient is finite wherever they are, but for an overflow: read off the graph before backward.

A gradient that is not finite under a loss that is comes from an operation whose derivative has a pole, as that of a
square root at 0, from one that masks what has overflowed, or from code that autograd does not know. Where a graph has
none of these, the gradient need not be read at each step: it grows, and the loss with it, before it overflows. A
compiled graph is one node, into which compiled_gradients.py looks.
"""

from typing import Any

import torch
from torchvitals.hooks.compiled_gradients import bounded_inside
from torchvitals.hooks.loss_graph import operation

MOST_NODES = 256
"""Looked at, 1 µs each: what has more takes long enough to read every gradient."""
BOUNDED = frozenset((
    # shapes and places
    "Alias", "Cat", "Clone", "ConstantPadNd", "Expand", "Flip", "Gather", "Index", "IndexSelect", "Permute", "Repeat",
    "Reshape", "ReshapeAlias", "Roll", "Select", "Slice", "Split", "SplitWithSizes", "Squeeze", "Stack", "T",
    "Transpose", "Unbind", "UnsafeSplit", "UnsafeView", "Unsqueeze", "View",
    # sums and products: a factor that is not finite would have shown in the loss
    "Add", "Addmm", "Addmv", "Baddbmm", "Bmm", "Convolution", "Dot", "Embedding", "MaskedFill", "Mean", "Mm", "Mul",
    "Mv", "Neg", "Rsub", "Sub", "Sum", "Tril", "Triu", "Where",
    # activations, pools, dropout and recurrent layers
    "Abs", "AdaptiveAvgPool2D", "Amax", "AvgPool2D", "Clamp", "ClampMin", "Elu", "Gelu", "Hardsigmoid", "Hardswish",
    "Hardtanh", "LeakyRelu", "LogSigmoid", "Max", "MaxPool2DWithIndices", "Mish", "MkldnnRnnLayer", "NativeDropout",
    "PreluKernel", "Relu", "Sigmoid", "Silu", "Softplus", "Tanh", "Threshold", "UpsampleBilinear2D",
    "UpsampleNearest2D",
    # norms, which add an epsilon, and softmaxes, which take the largest off
    "LogSoftmax", "NativeBatchNorm", "NativeGroupNorm", "NativeLayerNorm", "ScaledDotProductFlashAttentionForCpu",
    "Softmax",
    # losses
    "BinaryCrossEntropyWithLogits", "HuberLoss", "MseLoss", "NllLoss", "NllLoss2D", "SmoothL1Loss",
))  # fmt: skip
"""Operations whose derivative is finite and moderate wherever they and their inputs are."""
COMPILED = "CompiledFunction"
"""What torch.compile makes: one node for a whole graph."""

_words: dict[str, str] = {}
"""Names of nodes, and the operations they stand for: there are some hundred."""


def bounded(loss: torch.Tensor | None) -> bool:
    """Whether all of the graph of ``loss`` is made of such operations, and nobody hooked its leaves.

    >>> weight = torch.ones(2, requires_grad=True)
    >>> bounded((weight * 3).tanh().mean()), bounded((weight * 3).sqrt().mean())
    (True, False)
    >>> bounded((weight / 3).mean()), bounded((weight / weight).mean())
    (True, False)
    >>> bounded((weight**2).mean()), bounded((weight**0.5).mean())
    (True, False)
    """
    if loss is None or loss.grad_fn is None:
        return False
    seen = {loss.grad_fn}
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if not _bounded(node):
            return False
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
        if len(seen) > MOST_NODES:
            return False
    return True


def _bounded(node: Any) -> bool:
    name = node.name()
    word = _words.get(name)
    if word is None:
        word = _words[name] = operation(node)
    if word == "AccumulateGrad":
        leaf = node.variable
        return not (leaf._backward_hooks or getattr(leaf, "_post_accumulate_grad_hooks", None))
    if word == COMPILED:
        return bounded_inside(node)
    return word in BOUNDED or (word == "Div" and _by_constant(node)) or (word == "Pow" and _smooth(node))


def _smooth(node: Any) -> bool:
    """Whether a power is a square or the like; the derivative of a root, or of an inverse, has a pole."""
    exponent = getattr(node, "_saved_exponent", None)
    return isinstance(exponent, int | float) and exponent >= 1


def _by_constant(node: Any) -> bool:
    """Whether a division is one by a number that is not trained: by zero it would have shown in the loss."""
    try:
        divisor = getattr(node, "_saved_other", None)
    except RuntimeError:  # a backward pass before has freed it
        return False
    return isinstance(divisor, torch.Tensor) and not divisor.dim() and not divisor.requires_grad
