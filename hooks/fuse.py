"""The boundary between the job and us: the first error inside a probe ends that probe, never the job."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

from torchvitals.hooks.signal_handlers import raised_in_handler
from torchvitals.hooks.tracing import callback, dynamo_traces

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

log = logging.getLogger("torchvitals")


class Quiet(Protocol):
    """Knows an optimizer that a hook has nothing to do for."""

    @property
    def quiet(self) -> int:
        """Its id, 0 for none."""


class _Nobody(NamedTuple):
    quiet: int = 0


NOBODY: Quiet = _Nobody()
"""For a hook that has always something to do."""


class Fuse:
    """Runs probes so that nothing they raise escapes, but what a signal handler of the job raises meanwhile.

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
            except Exception as error:  # the fuse: whatever else it is, the job goes on
                if raised_in_handler(error):
                    raise
                blown.add(probe)
                self._tell(probe, error)
                return None

        return guarded

    def hook(
        self, probe: str, enough: Callable[[Any], bool], action: Callable[..., object], but_for: Quiet = NOBODY
    ) -> Callable[[Any, tuple[Any, ...], dict[str, Any]], None]:
        """A hook of an optimizer: ``action``, where ``enough`` (the probe) was not; as dynamo sees it, nothing.

        Nothing is done for the optimizer that ``but_for`` names at that moment. ``action`` is guarded already. All in
        one function: a call more costs a microsecond in every step.
        """
        blown = self.blown

        def outside(optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if dynamo_traces() or id(optimizer) == but_for.quiet or callback():
                return
            if probe not in blown:
                try:
                    if enough(optimizer):
                        return
                except Exception as error:  # the fuse, once more
                    if raised_in_handler(error):
                        raise
                    blown.add(probe)
                    self._tell(probe, error)
            action(optimizer, args, kwargs)

        return outside

    def shortcut(
        self, probe: str, enough: Callable[[tuple[Any, ...], dict[str, Any]], bool]
    ) -> Callable[[Any, Any], Any]:
        """What puts a shortcut before a tapped function: the original alone, where ``enough`` (the probe) was.

        All in one function, as above: a guarded call in its place took 3 µs more of each step.
        """
        blown = self.blown

        def before(original: Any, tapped: Any) -> Any:
            taps = tapped.taps

            @wraps(original)
            def passed(*args: Any, **kwargs: Any) -> Any:
                if taps.removed or dynamo_traces() or callback():
                    return original(*args, **kwargs)
                done = False
                if probe not in blown:
                    try:
                        done = enough(args, kwargs)
                    except Exception as error:  # the fuse, once more
                        if raised_in_handler(error):
                            raise
                        blown.add(probe)
                        self._tell(probe, error)
                return original(*args, **kwargs) if done else tapped(*args, **kwargs)

            return passed

        return before

    def _tell(self, probe: str, error: Exception) -> None:
        try:
            self._report(probe, error)
        except Exception as second:  # noqa: BLE001 (the fuse itself must hold)
            log.warning("torchvitals: the failure of the probe %r could not be written down: %s", probe, second)
