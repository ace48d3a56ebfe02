"""Every cause by name. One line here, and the diagnosis weighs it; a test compares this list with the files."""

from torchvitals.agent.case import Cause
from torchvitals.agent.causes.dying_relu import DyingRelu
from torchvitals.agent.causes.frozen_parameters import FrozenParameters
from torchvitals.agent.causes.learning_rate_zero import LearningRateZero
from torchvitals.agent.causes.saturating_activation import SaturatingActivation
from torchvitals.agent.causes.stale_optimizer_parameters import StaleOptimizerParameters
from torchvitals.agent.causes.unknown import Unknown

CAUSES: tuple[type[Cause], ...] = (
    DyingRelu,
    FrozenParameters,
    LearningRateZero,
    SaturatingActivation,
    StaleOptimizerParameters,
    Unknown,
)
