"""What counts as sick: every detector by name. One line here, and the contract suite and the engine have it."""

from torchvitals.detectors.dead_relu import DeadReluByGradient, DeadReluByOutput
from torchvitals.detectors.detector import Detector, RecordDetector
from torchvitals.detectors.drift import Drift
from torchvitals.detectors.memory_leak import MemoryLeak
from torchvitals.detectors.prediction_drift import PredictionDrift
from torchvitals.detectors.saturation import Saturation
from torchvitals.detectors.stuck_parameters import IdleOptimizer, UnchangedParameters
from torchvitals.detectors.update_ratio import UpdateRatio
from torchvitals.detectors.vanishing import VanishingGradient, ZeroGradient

DETECTORS: tuple[type[Detector], ...] = (
    MemoryLeak,
    PredictionDrift,
    Drift,
    DeadReluByGradient,
    DeadReluByOutput,
    IdleOptimizer,
    Saturation,
    UnchangedParameters,
    UpdateRatio,
    VanishingGradient,
    ZeroGradient,
)
RECORD_DETECTORS: tuple[type[RecordDetector], ...] = ()
