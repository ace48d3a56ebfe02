"""A process that does not even beat: stopped from outside, or held by native code that keeps the interpreter's lock."""

from typing import ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.ranks import ranks_text
from torchvitals.detectors.pulse import AT_REST


class FrozenProcess:
    """SIGSTOP or a debugger, an extension that does not release the GIL, a device that does not answer."""

    word: ClassVar[str] = "frozen_process"
    explains: ClassVar[tuple[str, ...]] = ("hang",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        hangs = case.of_kind("hang")
        silent = list(hangs[0].evidence.get("silent", ())) if hangs else []
        if not silent:
            return None
        finding = hangs[0]
        who = ranks_text(silent) if case.world_size > 1 else "the process"
        clues = [Clue(2.0, f"{who} has not beaten for {finding.value:.0f} s, which a thread of its own does")]
        seen = dict(finding.evidence.get("unheard", {})).get(silent[0], {})
        what, why, remedy = _read(str(seen.get("state", "")), seen)
        if why:
            clues.append(Clue(2.0, why))
        return Opinion(
            clues=clues,
            title=f"{who[:1].upper()}{who[1:]} {what} since step {finding.first_step}",
            explanation=(
                f"At step {finding.first_step} {who} fell silent for {finding.value:.0f} s in phase "
                f"`{dict(finding.evidence.get('phases', {})).get(silent[0], 'unknown')}`. "
                + (f"{why[:1].upper()}{why[1:]}. " if why else "")
                + f"{finding.evidence.get('sentence', '')[:1].upper()}{finding.evidence.get('sentence', '')[1:]}."
            ),
            remedy=remedy,
            rank=silent[0] if len(silent) == 1 and case.world_size > 1 else None,
        )


def _read(state: str, seen: dict[str, float]) -> tuple[str, str, str]:
    """What it is, how that is known, and what to do about it."""
    spent, seconds = float(seen.get("cpu_seconds") or 0.0), float(seen.get("seconds") or 1.0)
    used = f"it used {spent:.1f} s of CPU in {seconds:.0f} s"
    if state in ("T", "t"):
        return (
            "is stopped",
            f"the kernel says that it is stopped (state {state})",
            (
                "Somebody sent it SIGSTOP or attached a debugger: let it go on with `kill -CONT`, and find who sent it "
                "(job control, a cluster manager that suspends jobs, a debugger left attached)."
            ),
        )
    if state == "D":
        return (
            "waits in the kernel",
            "the kernel says that it waits for a device or a file system (state D)",
            "Look at the storage, the network file system and the kernel log of its host.",
        )
    if state and spent < AT_REST * seconds:
        return (
            "is frozen in native code",
            f"{used}: native code holds the interpreter's lock and waits",
            (
                "Find the extension that waits without releasing the GIL (`py-spy dump --native --pid`), and give "
                "that call a time limit."
            ),
        )
    if state:
        return (
            "is frozen in native code",
            f"{used}: native code computes and keeps the interpreter's lock",
            "Find the call that computes without releasing the GIL (`py-spy dump --native --pid` on it).",
        )
    return "is silent", "", "Look at its host: the process is stopped, dead or starved (`ps -o state,wchan -p`)."
