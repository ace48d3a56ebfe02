"""When something is not finite: which model to ask for the origin, and how often."""

from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torchvitals.hooks import loss_origin
from torchvitals.hooks.abandoned import job_frames, newest_loss
from torchvitals.hooks.forwards import RootWatch
from torchvitals.hooks.source import user_frames
from torchvitals.hooks.verdict import Scene

if TYPE_CHECKING:
    from torchvitals.hooks.observer import Observer

Ask = Callable[[RootWatch], Mapping[str, Any] | None]


class Origins:
    """Asks the replays, and writes what they answer.

    Args:
        observer: who knows the roots and the pending step.
        most_origins: answers per run: a job that goes on after one NaN repeats itself.
        most_replays: questions per run, each a forward and a backward; a norm that overflowed from finite
            gradients has no origin, and the next step is asked again.
        most_abandoned: losses given up that are looked at; a job that skips every second batch does so by plan.
    """

    def __init__(
        self, observer: "Observer", *, most_origins: int = 3, most_replays: int = 12, most_abandoned: int = 20
    ) -> None:
        self._observer = observer
        self._recorder = observer.recorder
        self._answers_left = most_origins
        self._replays_left = most_replays
        self._abandoned_left = most_abandoned
        self._bad_step = -1

    def of_loss(self, loss: torch.Tensor) -> None:
        """``loss`` is not finite and its graph is still there."""
        if self._moduleless:
            scene, frames = Scene({}, None), list(user_frames())
            self._ask_of_none(lambda: loss_origin.of_value(loss, scene, after=-1, frames=frames))
        else:
            self._ask(lambda root: root.replay.loss_origin(loss))

    def of_gradients(self, parameters: Sequence[torch.Tensor]) -> None:
        """The loss was finite and a gradient of ``parameters`` is not; the weights have not been touched."""
        if self._observer.pending.nonfinite_loss:
            return
        if self._moduleless:
            self._ask_of_none(lambda: loss_origin.of_gradient(Scene({}, None), after=-1))
        else:
            self._ask(lambda root: root.replay.gradient_origin(parameters))

    def of_abandoned(self, frame: FrameType | None) -> None:
        """A training forward was followed by no backward: did the job give up a bad loss?

        Args:
            frame: where the job is now, ``None`` when its script is over.
        """
        waiting = [root for root in self._observer.roots if root.awaiting_backward]
        if not waiting or self._abandoned_left <= 0:
            return
        self._abandoned_left -= 1
        for root in waiting:
            root.awaiting_backward = False
        frames = job_frames(frame)
        loss = newest_loss(frames)
        if loss is None:
            self._ask(lambda root: root.replay.output_origin() if root in waiting else None)
        elif loss.device.type == "cpu" and not bool(torch.isfinite(loss.detach())):
            for root in waiting:
                root.forwards = 0
            self._ask(lambda root: root.replay.loss_origin(loss, frames=frames) if root in waiting else None)
            self._observer.abandon(loss.detach())

    @property
    def _moduleless(self) -> bool:
        """Whether what is trained belongs to no module, of which a forward could be run again."""
        return not any(root.training_calls for root in self._observer.roots)

    def _first_of_incident(self) -> bool:
        """Whether this step shall be looked into: what follows within a step belongs to the same incident."""
        step = self._recorder.step
        if self._bad_step >= 0 and step - self._bad_step <= 1:
            self._bad_step = step
            return False
        if self._answers_left <= 0 or self._replays_left <= 0:
            return False
        self._replays_left -= 1
        return True

    def _ask_of_none(self, origin: Callable[[], Mapping[str, Any]]) -> None:
        if self._first_of_incident() and (answer := self._recorder.fuse.guard("replay", origin)()):
            self._tell(answer)

    def _ask(self, origin: Ask) -> None:
        """Ask all roots."""
        if not self._first_of_incident():
            return
        for root in self._observer.roots:
            root.replay.recall()
        ask = self._recorder.fuse.guard("replay", origin)
        trained = [root for root in self._observer.roots if root.training_calls]
        self._recorder.busy = True
        answers = [(root, answer) for root in trained if (answer := ask(root))]
        self._recorder.busy = False
        if answers:
            # A model that is not to blame may answer that it cannot tell, or that the loss made what another one gave
            # it; one that was seen to make it comes first.
            root, answer = max(answers, key=lambda pair: (bool(pair[1].get("complete")), pair[1]["phase"] == "forward"))
            module = root.prefix + answer["module"] if answer.get("module") else ""
            self._tell({**answer, "module": module})

    def _tell(self, answer: Mapping[str, Any]) -> None:
        self._bad_step = self._recorder.step
        self._answers_left -= 1
        self._recorder.event("origin", **answer)
