"""``torchvitals agent``: the service; its arguments are its own."""

from collections.abc import Sequence

from torchvitals.agent import service
from torchvitals.agent.config import ConfigError
from torchvitals.agent.errors import CommandError


def main(arguments: Sequence[str]) -> int:
    """Run the agent until it is told to stop."""
    try:
        return int(service.main(list(arguments)) or 0)
    except ConfigError as error:
        raise CommandError(str(error)) from error
