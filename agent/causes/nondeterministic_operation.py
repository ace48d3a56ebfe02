"""An operation adds in no fixed order: the same inputs give other bits each time."""

from typing import Any, ClassVar

from torchvitals.agent.case import Case, Clue, Opinion

INDEXED = ("index_put", "_unsafe_index_put", "index_add", "scatter_add", "scatter_reduce", "embedding")
"""Operations that add many numbers to few places."""


class NondeterministicOperation:
    """Threads or blocks of a device add to one place in the order in which they come."""

    word: ClassVar[str] = "nondeterministic_operation"
    explains: ClassVar[tuple[str, ...]] = ("nondeterminism",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        finding = case.findings[0]
        told = finding.evidence
        if told.get("differs") != "result":
            return None
        operation, name = str(told["operation"]), plain(told)
        phase = f" of the {told.get('phase')} pass" if told.get("phase") else ""
        clues = [
            Clue(4.0, f"{operation}{phase} was given the same bits and returned others, run {told.get('runs')} times")
        ]
        if name in told.get("unordered", ()):
            clues.append(Clue(1.0, "torch lists it as an operation without a deterministic algorithm"))
        threads = (case.facts.get("flags") or {}).get("threads")
        if threads and threads > 1 and name.startswith(INDEXED):
            clues.append(Clue(0.5, f"it adds many numbers to few places, with {threads} threads"))
        return Opinion(
            clues=clues,
            title=f"{operation} gives other bits on the same inputs",
            explanation=(
                f"Step {finding.first_step} was run again from the same weights, batch and random numbers: the first "
                f"operation to differ is {operation}{_called(told)}. Two runs of this job cannot be equal bit by bit."
            ),
            remedy=_remedy(name, told),
        )


def plain(told: dict[str, Any]) -> str:
    """The operation's name as torch's messages have it.

    >>> plain({"operation": "aten.index_put.default"})
    'index_put'
    """
    parts = str(told.get("operation", "")).split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def _called(told: dict[str, Any]) -> str:
    line, code = told.get("line"), told.get("code")
    of = "the backward of " if told.get("phase") == "backward" else ""
    return f", {of}{line}" + (f" (`{code}`)" if code else "") if line else ""


def _remedy(name: str, told: dict[str, Any]) -> str:
    if name in told.get("unordered", ()):
        return (
            "Torch has no ordered algorithm for it: write it differently where bits must repeat (sorted segments, a "
            "matrix product with one-hot rows), or accept differences of rounding."
        )
    hint = " Looking up a table by torch.nn.functional.embedding is ordered on a CPU." if "index_put" in name else ""
    return (
        "torch.use_deterministic_algorithms(True) makes torch take its ordered algorithm, which is slower; on a GPU "
        f"also set CUBLAS_WORKSPACE_CONFIG=:4096:8.{hint}"
    )
