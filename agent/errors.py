"""What the command line says when it cannot do what was asked: one line, and what to type next."""


class CommandError(Exception):
    """What happened; what was seen; what to type next. ``status`` becomes the exit code."""

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status
