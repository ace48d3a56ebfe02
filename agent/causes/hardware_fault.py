"""A device is broken: what its driver says through the exception that ended the job."""

from typing import ClassVar, NamedTuple

from torchvitals.agent.case import Case, Clue, Opinion


class Fault(NamedTuple):
    """What the CUDA runtime says (``cudaError``, CUDA Runtime API), what it is called, and what it is worth."""

    message: str
    name: str
    weight: float


FAULTS = (
    Fault("uncorrectable ecc error", "an uncorrectable memory (ECC) error", 7.0),
    Fault("uncorrectable nvlink error", "an uncorrectable NVLink error", 7.0),
    Fault("gpu is lost", "a GPU that fell off the bus", 7.0),
    Fault("hardware stack error", "a hardware stack error", 6.0),
    Fault("over nvlink or a hardware error", "a contained memory error of a GPU or of NVLink", 6.0),
    Fault("system not yet initialized", "a fabric manager that does not run (NVSwitch)", 5.0),
    Fault("an illegal instruction was encountered", "an illegal instruction on a GPU", 3.0),
)
"""Not among them: "illegal memory access", "device-side assert" and "unspecified launch failure", which code makes."""


class HardwareFault:
    """Speaks from the words of the driver; an exception that quotes them is the messenger."""

    word: ClassVar[str] = "hardware_fault"
    explains: ClassVar[tuple[str, ...]] = ("crash",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        crash = next(iter(case.of_kind("crash")), None)
        if crash is None:
            return None
        said = f"{crash.evidence.get('message', '')} {crash.evidence.get('cause', '')}"
        fault = next((fault for fault in FAULTS if fault.message in said.lower()), None)
        if fault is None:
            return None
        several = crash.rank is not None and case.world_size > 1
        whose = f"Rank {crash.rank}" if several else "The job"
        host = str(crash.evidence.get("host", ""))
        clues = [Clue(fault.weight, f"the driver reported {fault.name}: {_line(said, fault)}")]
        if crash.evidence.get("victim"):
            clues.append(Clue(-3.0, "it is what a rank meets whose peer is gone"))
        return Opinion(
            clues=clues,
            title=f"{whose}: {fault.name}",
            explanation=(
                f"{whose} ended at step {crash.step} because the driver reported {fault.name}"
                f"{f' on {host}' if host else ''}. No change of the code makes or mends that."
            ),
            remedy=(
                "Take the machine out of the pool, start again from the last checkpoint elsewhere, and ask the driver: "
                "`nvidia-smi -q -d ECC,ROW_REMAPPER` and the Xid lines of `dmesg`. A reset mends a contained error; "
                "a device that reports one again is to be replaced."
            ),
            rank=crash.rank if several else None,
        )


def _line(said: str, fault: Fault) -> str:
    return next((line for line in said.splitlines() if fault.message in line.lower()), said)[:160].strip()
