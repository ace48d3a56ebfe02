"""What happens to weights before the first step: they are drawn, loaded, normalised and tried out."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn import Module
from torchvitals.hooks.init_passes import InitPasses
from torchvitals.hooks.loaded_weights import LoadedWeights
from torchvitals.hooks.recorder import Recorder
from torchvitals.hooks.spectral_norms import SpectralNorms
from torchvitals.hooks.taps import Taps
from torchvitals.hooks.unmatched_state import UnmatchedState

PROBE = "beginnings"


class Beginnings:
    """Looks at models until they train; what it put in is gone by then.

    What it finds waits until something else has been written: who builds a model need not train it, and may not know
    yet which rank it is.

    Args:
        tell: is called with the name of a broken relation and its details.
        recorder: whose spool is open or not.
    """

    def __init__(self, tell: Callable[..., None], recorder: Recorder) -> None:
        self._tell, self._recorder = tell, recorder
        self._found: list[tuple[str, dict[str, Any]]] = []
        self._passes = InitPasses(lambda **details: self._note("initialized_by_ancestors", **details))
        self._loaded = LoadedWeights(self._note)
        self._unmatched = UnmatchedState(self._note)
        self._norms = SpectralNorms(lambda **details: self._note("spectral_norm_unsettled", **details))
        self._taps = Taps()
        self._began = False
        guard = recorder.fuse.guard
        self.loads = guard(PROBE, self._before_loading)
        self.loaded = guard(PROBE, self._after_loading)
        self.evaluated = guard(PROBE, self._after_evaluation)
        self.steps = guard(PROBE, self._before_first_step)

    def install(self) -> None:
        """Follow ``Module.apply`` from now on."""
        begins, ended = self._passes.begins, self._passes.ended
        guard = self._recorder.fuse.guard
        self._taps.wrap(Module, "apply", guard(PROBE, begins), guard(PROBE, ended))

    def _before_loading(self, args: tuple[Any, ...]) -> None:
        """A module is about to take a state."""
        if not self._began:
            self._loaded.begins(args[0])

    def _after_loading(self, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """It has taken it; ``result`` says what was missing. A second model may be loaded when a first has trained."""
        state = args[1] if len(args) > 1 else kwargs["state_dict"]
        self._unmatched.taken(args[0], state, result)
        if not self._began:
            self._loaded.taken(args[0], state)

    def _after_evaluation(self, module: Module | None, inputs: Any) -> None:
        """A root has answered."""
        for loaded in (self._loaded, self._unmatched):
            if loaded and module is not None:
                loaded.used(module.parameters())
        self._norms.evaluated(module, inputs)
        self.tell()

    def _before_first_step(self, parameters: Iterable[torch.Tensor]) -> None:
        """An optimizer is about to make its first step."""
        self._began = True
        self.remove()
        held = list(parameters)
        for loaded in (self._loaded, self._unmatched):
            if loaded:
                loaded.used(held)
        self.tell()

    def tell(self) -> None:
        """Tell what has been found, if this process says anything at all."""
        if self._began or self._recorder.writer is not None:
            while self._found:
                relation, details = self._found.pop(0)
                self._tell(relation, **details)

    def remove(self) -> None:
        """Follow nothing any more."""
        self._taps.remove()

    def _note(self, relation: str, **details: Any) -> None:
        self._found.append((relation, details))
