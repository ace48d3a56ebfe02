"""Where activation functions are flat: the elements at which the local slope is under 5 % of its maximum.

There a unit passes at most a twentieth of the gradient it could. Given as a test of the *output*, since the
input is not at hand in a forward hook.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import Module

SLOPE = 0.05
TANH_OUTPUT = (1.0 - SLOPE) ** 0.5  # slope 1 - y²
SIGMOID_SLOPE = SLOPE / 4.0  # slope y (1 - y), at most 1/4
SOFTSIGN_OUTPUT = 1.0 - SLOPE**0.5  # slope (1 - |y|)²


def tanh_is_flat(_module: Any, output: Tensor) -> Tensor:
    return output.abs().gt(TANH_OUTPUT)


def sigmoid_is_flat(_module: Any, output: Tensor) -> Tensor:
    return (output * (1.0 - output)).lt(SIGMOID_SLOPE)


def softsign_is_flat(_module: Any, output: Tensor) -> Tensor:
    return output.abs().gt(SOFTSIGN_OUTPUT)


def hardtanh_is_flat(module: Any, output: Tensor) -> Tensor:
    return output.le(module.min_val) | output.ge(module.max_val)


def hardsigmoid_is_flat(_module: Any, output: Tensor) -> Tensor:
    return output.le(0) | output.ge(1)


def logsigmoid_is_flat(_module: Any, output: Tensor) -> Tensor:
    """Flat on the right only: slope 1 - e^y."""
    return output.exp().gt(1.0 - SLOPE)


FLATNESS: dict[str, Callable[[Module, Tensor], Tensor]] = {
    "Tanh": tanh_is_flat,
    "Sigmoid": sigmoid_is_flat,
    "Softsign": softsign_is_flat,
    "Hardtanh": hardtanh_is_flat,
    "Hardsigmoid": hardsigmoid_is_flat,
    "LogSigmoid": logsigmoid_is_flat,
}
"""Class name → test. ReLU6 is left out: its lower half is as flat as that of any ReLU."""
