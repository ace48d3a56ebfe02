"""Which plots show an incident: signals, ranks and the range of steps worth looking at."""

from collections.abc import Sequence
from typing import Any

from torchvitals.detectors.detector import Finding

SCALARS: dict[str, tuple[str, ...]] = {
    "nonfinite": ("loss", "gradient_norm", "learning_rate", "input_absmax"),
    "explosion": ("gradient_norm", "loss", "learning_rate"),
    "vanishing": ("gradient_norm", "loss"),
    "dead_relu": ("loss", "gradient_norm"),
    "loss_spike": ("loss", "gradient_norm", "input_absmax"),
    "loss_scale_collapse": ("loss_scale", "skipped_steps", "loss"),
    "memory_leak": ("rss_bytes", "cuda_allocated_bytes", "live_tensors"),
    "memory_pressure": ("cuda_reserved_bytes", "cuda_allocated_bytes", "rss_bytes"),
    "desync": ("loss", "collectives", "learning_rate"),
    "drift": ("latency_seconds",),
}
PROFILES: dict[str, tuple[str, ...]] = {
    "explosion": ("parameter_gradient_norm",),
    "vanishing": ("parameter_gradient_norm",),
    "dead_relu": ("parameter_silent_rows", "module_silent_units"),
    "drift": ("feature_mean", "feature_missing"),
}
MARGIN_STEPS = 50
"""Context drawn before the first symptom, and after the last one."""


def links(root: Finding, findings: Sequence[Finding]) -> dict[str, Any]:
    """What to draw for an incident."""
    ranks = sorted({finding.rank for finding in findings if finding.rank is not None})
    return {
        "signals": list(SCALARS.get(root.kind, ("loss", "step_seconds"))),
        "profiles": list(PROFILES.get(root.kind, ())),
        "ranks": ranks,
        "steps": [
            max(0, min(finding.first_step for finding in findings) - MARGIN_STEPS),
            max(finding.step for finding in findings) + MARGIN_STEPS,
        ],
    }
