"""What the numbers depend on beside the code: versions, the machine's arithmetic, and torch's switches."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG", "CUDA_LAUNCH_BLOCKING", "MKL_NUM_THREADS", "NVIDIA_TF32_OVERRIDE", "OMP_NUM_THREADS",
    "PYTHONHASHSEED", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)  # fmt: skip
"""Environment variables that change what is computed; their values are no secrets."""
DRIVER = Path("/proc/driver/nvidia/version")


def describe_environment(environ: Mapping[str, str] = os.environ) -> dict[str, dict[str, Any]]:
    """``versions`` and ``flags``; a switch that this torch does not have, or does not tell, is left out.

    Nothing here starts CUDA: to ask for a device's properties would.
    """
    return {"versions": _told(_VERSIONS), "flags": _told(_FLAGS) | {k: environ[k] for k in VARIABLES if k in environ}}


def _told(questions: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for name, ask in questions.items():
        try:
            answer = ask()
        except (AttributeError, RuntimeError, OSError):  # an older torch, or flags set through two interfaces at once
            continue
        if answer is not None:
            answers[name] = answer
    return answers


def _numpy() -> str | None:
    module = sys.modules.get("numpy")
    return getattr(module, "__version__", None)


def _driver() -> str | None:
    """The kernel module's version, from the file that the driver keeps; no call into CUDA."""
    if not DRIVER.exists():
        return None
    words = DRIVER.read_text(encoding="utf-8", errors="replace").split()
    return next((word for word in words if word.count(".") >= 1 and word[0].isdigit()), None)


_VERSIONS: dict[str, Callable[[], Any]] = {
    "torch": lambda: str(torch.__version__),
    "torch_commit": lambda: str(torch.version.git_version)[:12],
    "python": lambda: ".".join(map(str, sys.version_info[:3])),
    "numpy": _numpy,
    "cuda": lambda: torch.version.cuda,
    "cudnn": torch.backends.cudnn.version,
    "driver": _driver,
    "cpu_instructions": torch.backends.cpu.get_cpu_capability,
}
_FLAGS: dict[str, Callable[[], Any]] = {
    "deterministic_algorithms": torch.are_deterministic_algorithms_enabled,
    "deterministic_warn_only": torch.is_deterministic_algorithms_warn_only_enabled,
    "cudnn_benchmark": lambda: bool(torch.backends.cudnn.benchmark),
    "cudnn_deterministic": lambda: bool(torch.backends.cudnn.deterministic),
    "cudnn_tf32": lambda: bool(torch.backends.cudnn.allow_tf32),
    "float32_matmul_precision": torch.get_float32_matmul_precision,
    "threads": torch.get_num_threads,
    "default_dtype": lambda: str(torch.get_default_dtype()).removeprefix("torch."),
}
