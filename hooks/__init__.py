"""What a job feels. The front door: ``from torchvitals.hooks import attach``."""

from torchvitals.hooks.guard import BadStep, Guard, NonFiniteStepError
from torchvitals.hooks.monitor import Monitor, attach

__all__ = ["BadStep", "Guard", "Monitor", "NonFiniteStepError", "attach"]
