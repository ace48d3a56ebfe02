"""Forwards that do not train: an evaluation between steps, or the requests of a service."""

from typing import TYPE_CHECKING, Any

from torchvitals.hooks.served_weights import ServedWeights
from torchvitals.hooks.serving import QUIET_WHERE_TRAINED, Service
from torchvitals.hooks.serving_mode import ServingMode
from torchvitals.hooks.undefined import TRIES, origin_of

if TYPE_CHECKING:
    from torchvitals.hooks.forwards import RootWatch
    from torchvitals.hooks.observer import Observer

UNLIKE_AN_EVALUATION = 2
"""Times the longest evaluation so far: what is answered in a row beyond that, in a process that trains, is requests."""

SETTLED = 64
"""Requests in evaluation mode after which a model that was trained serves: more than a look at one epoch's examples."""


class Evaluations:
    """What is answered between two training steps, and in a process that never trains."""

    def __init__(self, observer: "Observer") -> None:
        self._observer = observer
        self._recorder = observer.recorder
        self.interrupted = False
        """An evaluation ran since the last watched step."""
        self._services: dict[int, Service] = {}
        self._begun = 0
        """Services so far: what each answers is compared with its own beginning, since weights change between them."""
        self._longest = 0
        """Forwards in the longest evaluation so far."""
        self.forwards = 0
        """Forwards without gradients since the last step of a job that trains."""
        guard = observer.recorder.fuse.guard
        self._relate = guard("relations", observer.relations.evaluated)
        self._validates = guard("validation", observer.validation.evaluated)
        self._locate = guard("replay", self._look_for_origin)
        self._tries = TRIES
        self._look()
        self._watch_mode = guard("relations", self._answered_in_mode)
        self._mode_kept = guard("relations", self._ended_in_mode)
        self._watch_weights = guard("weights", self._answered_with)

    def answered(self, root: "RootWatch", args: tuple[Any, ...], kwargs: Any, output: Any, seconds: float) -> None:
        """A root was called without gradients, or in evaluation mode: an evaluation, or a request."""
        observer = self._observer
        self.interrupted = True
        self._relate(root.module(), (args, kwargs), output)
        self._validates(root.module(), output)
        fed = observer.pending.loader_batches > 0
        if observer.will_train:
            # Nothing is kept of an evaluation, a teacher or a policy at play: there is one in every step of some jobs.
            self.forwards += 1
            if fed or self.forwards <= max(QUIET_WHERE_TRAINED, UNLIKE_AN_EVALUATION * self._longest):
                return
        service = self._services.get(id(root))
        if service is None:
            name, before = type(root.module()).__name__, max(0, self.forwards - 1)
            stored = fed and observer.loading.stored
            if observer.will_train and not self._services:
                self._look(settled=SETTLED)  # what was seen before the last step was another model
            service = Service(name, self._recorder, self._begun, before=before, stored=stored)
            self._services[id(root)] = service
            self._begun += 1
        service.request(args, kwargs, output, seconds)
        if service.answers_nan and self._tries:
            self._locate(root, args, kwargs, output)
        if not observer.optimizers:
            self._recorder.step = service.requests
        self._watch_mode(root.module(), (args, kwargs), service.requests)
        self._watch_weights(root.module(), service.requests)

    def _answered_in_mode(self, *asked: Any) -> None:
        self._mode.answered(*asked)

    def _ended_in_mode(self) -> None:
        self._mode.ended()

    def _answered_with(self, *asked: Any) -> None:
        self._weights.answered(*asked)

    def _look(self, *, settled: int = 0) -> None:
        """Watch mode and weights of what answers from now on."""
        self._mode = ServingMode(self._tell_mode, settled=settled)
        self._weights = ServedWeights(lambda details: self._recorder.event("weights_replaced", **details))

    def _tell_mode(self, first: int, count: int, layer: str) -> None:
        details = {"relation": "served_in_training_mode", "first": first, "count": count, "parameter": layer}
        self._recorder.event("relation", **details)

    def _look_for_origin(self, root: "RootWatch", args: tuple[Any, ...], kwargs: Any, output: Any) -> None:
        origin = origin_of(root, args, kwargs, output)
        if origin is None:
            return
        found = origin["complete"] and origin["operation"]
        self._tries = 0 if found else self._tries - 1
        if found:
            module = root.prefix + origin["module"] if origin["module"] else ""
            self._recorder.event("origin", **{**origin, "module": module})

    def paused(self) -> None:
        """A step was counted: what follows is another evaluation."""
        if self.forwards:
            self.flush()
            self.forget()

    def ended(self) -> None:
        """A watched step was closed."""
        self.interrupted = False
        self.paused()

    def flush(self) -> None:
        """Write what waits for a full window."""
        for service in self._services.values():
            service.flush()

    def close(self) -> None:
        """The process ends: one that made no optimizer was a service from its first request on."""
        self.flush()
        if not self._observer.will_train:
            self._mode_kept()

    def forget(self) -> None:
        """What was answered so far was no service of this process."""
        self._services.clear()
        self._longest = max(self._longest, self.forwards)
        self.forwards = 0
