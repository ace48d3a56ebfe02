"""Every cause by name. One line here, and the diagnosis weighs it; a test compares this list with the files."""

from torchvitals.agent.case import Cause
from torchvitals.agent.causes.unknown import Unknown

CAUSES: tuple[type[Cause], ...] = (Unknown,)
