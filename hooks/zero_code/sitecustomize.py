"""Started by Python itself in every child of ``torchvitals run``: waits for torch, then starts the hooks.

It must cost nothing where torch is never imported, must never stop a child from starting, and must let the
``sitecustomize`` of the user's own environment run as if this one were not there. Hence no import but of what every
interpreter has loaded already: ``importlib.util`` alone would take longer than all the rest.
"""

import os
import sys


class _AfterTorch:
    """Finds ``torch`` as everybody else would, and adds one call behind its import."""

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        found = (finder.find_spec(name, path, target) for finder in list(sys.meta_path) if hasattr(finder, "find_spec"))
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            execute(module)
            _start()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _start() -> None:
    try:
        from torchvitals.hooks import unattended

        unattended.start()
    except Exception as error:  # noqa: BLE001 (the fuse of the start: the user's program runs whatever happens)
        if not os.environ.get("TORCHVITALS_QUIET"):
            message = f"torchvitals: not watching this process: {type(error).__name__}: {error}\n"
            sys.stderr.write(
                message + f"  interpreter: {sys.executable}; try: {sys.executable} -m pip install torchvitals\n"
            )


def _chain() -> None:
    """Run the sitecustomize that would have run without us."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 (pathlib costs every child an import)
    elsewhere = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]  # noqa: PTH100
    by_path = next((finder for finder in sys.meta_path if getattr(finder, "__name__", "") == "PathFinder"), None)
    spec = by_path.find_spec("sitecustomize", elsewhere) if by_path is not None else None
    if spec is None or spec.loader is None:
        return
    import importlib.util

    module = importlib.util.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


if os.environ.get("TORCHVITALS_RUN"):
    sys.meta_path.insert(0, _AfterTorch())
_chain()
