"""Every cause by name. One line here, and the diagnosis weighs it; a test compares this list with the files."""

from torchvitals.agent.case import Cause
from torchvitals.agent.causes.bad_batch import BadBatch
from torchvitals.agent.causes.bad_initialization import BadInitialization
from torchvitals.agent.causes.broadcast_targets import BroadcastTargets
from torchvitals.agent.causes.changing_constant import ChangingConstant
from torchvitals.agent.causes.checkpoint_not_loaded import CheckpointNotLoaded
from torchvitals.agent.causes.collective_mismatch import CollectiveMismatch
from torchvitals.agent.causes.constant_loss import ConstantLoss
from torchvitals.agent.causes.corrupted_checkpoint import CorruptedCheckpoint
from torchvitals.agent.causes.corrupted_gradient import CorruptedGradient
from torchvitals.agent.causes.corrupted_optimizer_state import CorruptedOptimizerState
from torchvitals.agent.causes.dataloader_stall import DataloaderStall
from torchvitals.agent.causes.double_softmax import DoubleSoftmax
from torchvitals.agent.causes.duplicated_augmentation_seed import DuplicatedAugmentationSeed
from torchvitals.agent.causes.dying_relu import DyingRelu
from torchvitals.agent.causes.dynamic_shapes import DynamicShapes
from torchvitals.agent.causes.eval_mode_missing import EvalModeMissing
from torchvitals.agent.causes.exception import UncaughtException
from torchvitals.agent.causes.excessive_clipping import ExcessiveClipping
from torchvitals.agent.causes.excessive_epsilon import ExcessiveEpsilon
from torchvitals.agent.causes.excessive_weight_decay import ExcessiveWeightDecay
from torchvitals.agent.causes.feature_shift import FeatureShift
from torchvitals.agent.causes.fp16_overflow import Fp16Overflow
from torchvitals.agent.causes.frozen_but_updated import FrozenButUpdated
from torchvitals.agent.causes.frozen_parameters import FrozenParameters
from torchvitals.agent.causes.frozen_process import FrozenProcess
from torchvitals.agent.causes.growing_cache import GrowingCache
from torchvitals.agent.causes.hardware_fault import HardwareFault
from torchvitals.agent.causes.invalid_targets import InvalidTargets
from torchvitals.agent.causes.label_shift import LabelShift
from torchvitals.agent.causes.learning_rate_too_high import LearningRateTooHigh
from torchvitals.agent.causes.learning_rate_zero import LearningRateZero
from torchvitals.agent.causes.lost_in_rounding import LostInRounding
from torchvitals.agent.causes.maximized_loss import MaximizedLoss
from torchvitals.agent.causes.misplaced_zero_grad import MisplacedZeroGrad
from torchvitals.agent.causes.missing_feature import MissingFeature
from torchvitals.agent.causes.missing_log_softmax import MissingLogSoftmax
from torchvitals.agent.causes.missing_normalization import MissingNormalization
from torchvitals.agent.causes.missing_optimizer_state import MissingOptimizerState
from torchvitals.agent.causes.missing_step import MissingStep
from torchvitals.agent.causes.missing_zero_grad import MissingZeroGrad
from torchvitals.agent.causes.no_sync_left_on import NoSyncLeftOn
from torchvitals.agent.causes.nondeterministic_operation import NondeterministicOperation
from torchvitals.agent.causes.numerical_domain_error import NumericalDomainError
from torchvitals.agent.causes.out_of_memory_kill import OutOfMemoryKill
from torchvitals.agent.causes.overfitting import Overfitting
from torchvitals.agent.causes.rank_local_load import RankLocalLoad
from torchvitals.agent.causes.rank_local_update import RankLocalUpdate
from torchvitals.agent.causes.repeated_batch import RepeatedBatch
from torchvitals.agent.causes.repeated_initialization import RepeatedInitialization
from torchvitals.agent.causes.rescaled_loss import RescaledLoss
from torchvitals.agent.causes.retained_graph import RetainedGraph
from torchvitals.agent.causes.router_collapse import RouterCollapse
from torchvitals.agent.causes.saturating_activation import SaturatingActivation
from torchvitals.agent.causes.slow_communication import SlowCommunication
from torchvitals.agent.causes.slow_compute_rank import SlowComputeRank
from torchvitals.agent.causes.slow_dataloader import SlowDataloader
from torchvitals.agent.causes.slow_dependency import SlowDependency
from torchvitals.agent.causes.slow_input_rank import SlowInputRank
from torchvitals.agent.causes.softmax_over_batch import SoftmaxOverBatch
from torchvitals.agent.causes.stale_optimizer_parameters import StaleOptimizerParameters
from torchvitals.agent.causes.stuck_code import StuckCode
from torchvitals.agent.causes.thermal_throttle import ThermalThrottle
from torchvitals.agent.causes.train_mode_missing import TrainModeMissing
from torchvitals.agent.causes.unconverged_spectral_norm import UnconvergedSpectralNorm
from torchvitals.agent.causes.uninformative_labels import UninformativeLabels
from torchvitals.agent.causes.unknown import Unknown
from torchvitals.agent.causes.unseeded_generator import UnseededGenerator
from torchvitals.agent.causes.unsynced_buffers import UnsyncedBuffers
from torchvitals.agent.causes.unsynced_forward import UnsyncedForward
from torchvitals.agent.causes.weights_overwritten import WeightsOverwritten

CAUSES: tuple[type[Cause], ...] = (
    BadBatch,
    BadInitialization,
    BroadcastTargets,
    ChangingConstant,
    CheckpointNotLoaded,
    CollectiveMismatch,
    ConstantLoss,
    CorruptedCheckpoint,
    CorruptedGradient,
    CorruptedOptimizerState,
    DataloaderStall,
    DoubleSoftmax,
    DuplicatedAugmentationSeed,
    DyingRelu,
    DynamicShapes,
    EvalModeMissing,
    ExcessiveClipping,
    ExcessiveEpsilon,
    ExcessiveWeightDecay,
    FeatureShift,
    Fp16Overflow,
    FrozenButUpdated,
    FrozenParameters,
    FrozenProcess,
    GrowingCache,
    HardwareFault,
    InvalidTargets,
    LabelShift,
    LearningRateTooHigh,
    LearningRateZero,
    LostInRounding,
    MaximizedLoss,
    MisplacedZeroGrad,
    MissingFeature,
    MissingLogSoftmax,
    MissingNormalization,
    MissingOptimizerState,
    MissingStep,
    MissingZeroGrad,
    NoSyncLeftOn,
    NondeterministicOperation,
    NumericalDomainError,
    OutOfMemoryKill,
    Overfitting,
    RankLocalLoad,
    RankLocalUpdate,
    RepeatedBatch,
    RepeatedInitialization,
    RescaledLoss,
    RetainedGraph,
    RouterCollapse,
    SaturatingActivation,
    SlowCommunication,
    SlowComputeRank,
    SlowDataloader,
    SlowDependency,
    SlowInputRank,
    SoftmaxOverBatch,
    StaleOptimizerParameters,
    StuckCode,
    ThermalThrottle,
    TrainModeMissing,
    UncaughtException,
    UnconvergedSpectralNorm,
    UninformativeLabels,
    Unknown,
    UnseededGenerator,
    UnsyncedBuffers,
    UnsyncedForward,
    WeightsOverwritten,
)
