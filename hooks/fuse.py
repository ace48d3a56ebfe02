"""The boundary between the job and us: the first error inside a probe ends that probe, never the job."""

import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

log = logging.getLogger("torchvitals")


class Fuse:
    """Runs probes so that nothing they raise escapes.

    Args:
        report: called once per probe with its name and the error that blew it.
    """

    def __init__(self, report: Callable[[str, Exception], None]) -> None:
        self.blown: set[str] = set()
        self._report = report

    def guard(self, probe: str, action: Callable[Parameters, Result]) -> Callable[Parameters, Result | None]:
        """``action``, which returns ``None`` from its first error on.

        >>> seen = []
        >>> fuse = Fuse(lambda probe, error: seen.append((probe, str(error))))
        >>> fails = fuse.guard("demo", lambda: 1 / 0)
        >>> fails(), fails(), seen
        (None, None, [('demo', 'division by zero')])
        """
        blown = self.blown

        def guarded(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result | None:
            if probe in blown:
                return None
            try:
                return action(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 (the fuse: whatever it is, the job goes on)
                blown.add(probe)
                self._tell(probe, error)
                return None

        return guarded

    def _tell(self, probe: str, error: Exception) -> None:
        try:
            self._report(probe, error)
        except Exception as second:  # noqa: BLE001 (the fuse itself must hold)
            log.warning("torchvitals: the failure of the probe %r could not be written down: %s", probe, second)
