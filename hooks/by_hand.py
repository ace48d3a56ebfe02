"""Training without torch.optim: weights that change between two backward passes have made a step.

No optimizer tells when it steps, so a step is known when the next backward pass begins and a few weights are not
what they were when the last one ended; passes in between that changed nothing were micro-batches of it. What is
read is the loss, the norm of all gradients as the last pass left them, and the forward; what was done to the
gradients afterwards (clipping by hand) is not seen.
"""

import time
from typing import TYPE_CHECKING, Any

import torch
from torchvitals.hooks import discovery, gradients
from torchvitals.hooks.losses import sum_of
from torchvitals.hooks.readback import read

if TYPE_CHECKING:
    from torchvitals.hooks.observer import Observer

PROFILES = "weights change without a torch.optim optimizer: no parameter is looked at by itself"
RATE = "weights change without a torch.optim optimizer: the rate is a number of the job's own"


class ByHand:
    """Closes the steps of a job whose optimizer nobody knows; does nothing once there is one."""

    def __init__(self, observer: "Observer") -> None:
        self._observer = observer
        self._recorder = observer.recorder
        self._parameters: list[torch.Tensor] = []
        self._probe: list[torch.Tensor] = []
        self._copies: list[torch.Tensor] = []
        self._losses: list[torch.Tensor] = []
        self._scalars: dict[str, Any] = {}
        self._passes = 0
        self._step = 0
        self._closed = 0.0

    @property
    def _alone(self) -> bool:
        """Whether no optimizer has been made, which will take what is pending when it steps."""
        return not self._observer.optimizers and (self._step > 0 or not self._observer.will_train)

    def begins(self) -> None:
        """A backward pass begins: if the weights have changed since the last one, that one made a step."""
        if self._alone and self._passes and self._weights_changed():
            self._close()

    def ended(self) -> None:
        """A backward pass has ended: keep what belongs to it, for nobody else will take it."""
        observer = self._observer
        if not self._alone:
            self._forget()
            return
        taken = observer.pending.take()
        if not any(root.training_calls for root in observer.roots):
            return  # gradients of something else
        if not self._parameters:
            self._find_parameters()
        self._passes += 1
        self._losses += taken.losses
        items = self._scalars.get("batch_items", 0.0) + taken.scalars.get("batch_items", 0.0)
        self._scalars |= {**taken.scalars, **taken.logged}
        if items:
            self._scalars["batch_items"] = items
        self._read_norms()

    def finish(self) -> None:
        """The job is over: the last step has nothing behind it."""
        if self._alone and self._passes and self._weights_changed():
            self._close()

    def _find_parameters(self) -> None:
        observer = self._observer
        modules = [m for root in observer.roots if root.training_calls and (m := root.module()) is not None]
        observer.adopt([discovery.unwrap(module) for module in modules])
        self._parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        self._probe = gradients.tripwire(self._parameters) + gradients.tripwire(self._parameters[::-1])

    def _read_norms(self) -> None:
        norm = gradients.global_norm(gradients.gradients(self._parameters))
        if norm is not None:
            self._scalars["gradient_norm"] = norm
        norm = gradients.global_norm(gradients.gradients(self._probe[:1]))
        if norm is not None:
            self._scalars["tripwire_norm"] = norm
        self._copies = [p.detach().clone() for p in self._probe]

    def _weights_changed(self) -> bool:
        return any(not torch.equal(p.detach(), copy) for p, copy in zip(self._probe, self._copies, strict=True))

    def _close(self) -> None:
        """Write the step down; the forward of the next one has run already, so there are no phases."""
        recorder = self._recorder
        now = time.perf_counter()
        values: dict[str, Any] = {**self._scalars, "backward_passes": float(self._passes)}
        if self._losses and "loss" not in values:
            values["loss"] = sum_of(self._losses)
        if self._closed:
            values["step_seconds"] = now - self._closed
        ready, arriving = read(values)
        ready |= arriving.values(wait=True) if arriving else {}
        recorder.open().step(self._step, recorder.clock(), ready)
        recorder.close_step(now - self._closed if self._closed else 0.0)
        self._closed = now
        self._step += 1
        recorder.step = self._step
        self._forget()
        if self._step == 1:
            self._begin()

    def _begin(self) -> None:
        """It trains: say what it is, and what is not seen of it."""
        observer = self._observer
        observer.will_train = True
        names = [model.name for model in observer.naming.models]
        self._recorder.event("attached", models=names, optimizers=[], found=True)
        self._recorder.send_facts()
        observer.unseen.note("parameters", PROFILES)
        observer.unseen.note("learning_rate", RATE)
        observer.unseen.tell()
        observer.beat.start()

    def _forget(self) -> None:
        self._losses, self._scalars, self._passes, self._copies = [], {}, 0, []
