"""What cannot be seen in this job and why, each said once, and not before the job trains."""

from torchvitals.hooks.recorder import Recorder


class Unseen:
    """Keeps the reasons until there is a run to write them into: a process that never trains leaves no trace."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._why: dict[str, str] = {}
        self._telling = False

    def note(self, what: str, why: str) -> None:
        """``what`` is not seen; the first reason counts, an empty one is none."""
        if why and what not in self._why:
            self._why[what] = why
            if self._telling:
                self._recorder.not_checked(what, why)

    def tell(self) -> None:
        """The job trains: say everything, and from now on at once."""
        if not self._telling:
            self._telling = True
            for what, why in self._why.items():
                self._recorder.not_checked(what, why)
