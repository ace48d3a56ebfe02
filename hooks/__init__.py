"""What a job feels. The front door: ``from torchvitals.hooks import attach``."""

from torchvitals.hooks.monitor import Monitor, attach

__all__ = ["Monitor", "attach"]
