"""Whether an address can be listened on, said before anything is started."""

import socket

from torchvitals.agent.errors import CommandError


def require_free(host: str, port: int, option: str) -> None:
    """Return when ``host:port`` is free.

    Raises:
        CommandError: it is in use, or not ours to listen on; ``option`` is what to type instead.

    """
    try:
        _bind(host, port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CommandError(f"cannot listen on {host}:{port}: {reason}; choose another with {option}") from error


def free_or_other(host: str, port: int) -> int:
    """``port`` when it is free, else one that is."""
    try:
        return _bind(host, port)
    except OSError:
        return _bind(host, 0)


def _bind(host: str, port: int) -> int:
    """Listen there for a moment; return the port, which is a free one for ``port`` 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a listener just closed counts as one
        probe.bind((host, port))
        return int(probe.getsockname()[1])
