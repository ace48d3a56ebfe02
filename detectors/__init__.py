"""What counts as sick: every detector by name. One line here, and the contract suite and the engine have it."""

from torchvitals.detectors.beyond_chance import BeyondChance
from torchvitals.detectors.bottomless import Bottomless
from torchvitals.detectors.buffer_spread import BufferSpread
from torchvitals.detectors.congestion import Congestion
from torchvitals.detectors.crash import Crash
from torchvitals.detectors.creeping import Creeping
from torchvitals.detectors.dead_relu import DeadReluByGradient, DeadReluByOutput
from torchvitals.detectors.desync import Desync
from torchvitals.detectors.detector import Detector, RecordDetector
from torchvitals.detectors.divergence import Divergence, UnclearedGradients
from torchvitals.detectors.drift import Drift
from torchvitals.detectors.duplicate_data import DuplicateData
from torchvitals.detectors.explosion import Explosion
from torchvitals.detectors.hang import Hang
from torchvitals.detectors.input_bound import InputBound
from torchvitals.detectors.latency import Latency
from torchvitals.detectors.loss_scale_collapse import LossScaleCollapse
from torchvitals.detectors.loss_spike import LossSpike
from torchvitals.detectors.lost_progress import LostProgress
from torchvitals.detectors.maximized import Maximized
from torchvitals.detectors.memory_leak import MemoryLeak
from torchvitals.detectors.memory_pressure import MemoryPressure
from torchvitals.detectors.miswired import BrokenRelation, WrongMode
from torchvitals.detectors.nondeterminism import Nondeterminism
from torchvitals.detectors.nonfinite import NonFinite
from torchvitals.detectors.overfit import Overfit
from torchvitals.detectors.plateau import Plateau
from torchvitals.detectors.prediction_drift import PredictionDrift
from torchvitals.detectors.recompile_storm import RecompileStorm
from torchvitals.detectors.runaway import Runaway
from torchvitals.detectors.saturation import Saturation
from torchvitals.detectors.slowdown import Slowdown
from torchvitals.detectors.standstill import Standstill
from torchvitals.detectors.straggler import Straggler
from torchvitals.detectors.stuck_parameters import IdleOptimizer, UnchangedParameters
from torchvitals.detectors.thrown_off import ThrownOff
from torchvitals.detectors.undefined_answers import UndefinedAnswers
from torchvitals.detectors.unlearnt import Unlearnt
from torchvitals.detectors.unsynced_backward import UnsyncedBackward
from torchvitals.detectors.update_ratio import UpdateRatio
from torchvitals.detectors.vanishing import VanishingGradient, ZeroGradient
from torchvitals.detectors.vanishing_weights import VanishingWeights
from torchvitals.detectors.wild_start import WildStart
from torchvitals.detectors.worker_leak import WorkerLeak
from torchvitals.detectors.worse_than_guess import WorseThanGuess

DETECTORS: tuple[type[Detector], ...] = (
    DeadReluByGradient,
    DeadReluByOutput,
    Desync,  # the first of a kind says what the kind needs
    BufferSpread,
    Divergence,
    Bottomless,
    Drift,
    DuplicateData,
    Explosion,
    IdleOptimizer,
    InputBound,
    LossScaleCollapse,
    LossSpike,
    LostProgress,
    MemoryLeak,
    MemoryPressure,
    NonFinite,
    Overfit,
    Plateau,
    PredictionDrift,
    RecompileStorm,
    Saturation,
    Slowdown,
    Creeping,
    Standstill,
    Straggler,
    Congestion,
    ThrownOff,
    UnchangedParameters,
    UnclearedGradients,
    UnsyncedBackward,
    UpdateRatio,
    VanishingGradient,
    VanishingWeights,
    WorkerLeak,
    WorseThanGuess,
    WrongMode,
    ZeroGradient,
)
RECORD_DETECTORS: tuple[type[RecordDetector], ...] = (
    BeyondChance,
    Runaway,
    BrokenRelation,
    Crash,
    Hang,
    Latency,
    Maximized,
    Nondeterminism,
    UndefinedAnswers,
    Unlearnt,
    WildStart,
)
