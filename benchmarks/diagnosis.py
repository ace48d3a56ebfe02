"""How often is the diagnosis right? Real jobs with one fault each, started and diagnosed as a user would.

``python benchmarks/diagnosis.py [--only rate,ranks] [--seeds 3] [--jobs 2] [--output results.json] [--keep DIR]``
runs every script of ``benchmarks/faults`` under ``torchvitals run`` and asks ``torchvitals diagnose --json``.
"""

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "faults"))
from table import Fault, cases  # noqa: E402 (a folder of scripts, no package)

SECONDS = 1800
"""A job takes 5; on a machine that others use as well, minutes."""
BINS = (0.0, 0.5, 0.7, 0.9, 0.97, 1.0001)


class Judged(NamedTuple):
    """One case and what became of it; the incident is the one told first."""

    fault: str
    family: str
    seed: int
    truth: str
    kind: str
    cause: str
    confidence: float
    where: str
    first_step: int
    incidents: int
    cause_right: bool
    place_right: bool | None
    """``None`` where no place is to be named."""
    step_right: bool
    others: list[str]
    """Causes ranked after the first, with their confidence, and the kinds of further incidents."""


def command(fault: Fault, family: str, seed: int) -> list[str]:
    """What the user would type after ``torchvitals run``."""
    script = [str(HERE / "faults" / f"{fault.script}.py"), family, str(seed)]
    script += [fault.argument] if fault.argument else []
    if not fault.ranks:
        return [sys.executable, *script]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={fault.ranks}", *script]


def diagnosed(fault: Fault, family: str, seed: int, directory: Path) -> dict[str, Any]:
    """Run one case and return the object of ``diagnose --json``."""
    home = directory / f"{fault.name.replace(':', '-')}-{family}-{seed}"
    home.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "TORCHVITALS_DIR": str(home), "OMP_NUM_THREADS": "1"}
    if not (home / "output.txt").exists():  # an earlier attempt that was broken off is made again
        shutil.rmtree(home)
        home.mkdir()
        run = [sys.executable, "-m", "torchvitals.agent.cli", "run", *command(fault, family, seed)]
        ended = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
        (home / "output.txt").write_text(ended.stdout + ended.stderr)
    ask = [sys.executable, "-m", "torchvitals.agent.cli", "diagnose", "latest", "--json"]
    told = subprocess.run(ask, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    answer: dict[str, Any] = json.loads(told.stdout) if told.stdout else {"incidents": [], "error": told.stderr}
    return answer


def judge(fault: Fault, family: str, seed: int, told: dict[str, Any]) -> Judged:
    """Compare the first incident with the truth."""
    incidents = told["incidents"]
    first = incidents[0] if incidents else {}
    place, where = fault.place(family), str(first.get("where") or "")
    step = int(first.get("first_step", -1))
    others = [f"{cause['cause']} {cause['confidence']:.2f}" for cause in first.get("causes", [])[1:3]]
    return Judged(
        fault=fault.name,
        family=family,
        seed=seed,
        truth=fault.cause,
        kind=str(first.get("kind", "")),
        cause=str(first.get("cause", "")),
        confidence=float(first.get("confidence", 0.0)),
        where=where,
        first_step=step,
        incidents=len(incidents),
        cause_right=first.get("cause") == fault.cause,
        place_right=(place in where and fault.rank in (None, first.get("rank"))) if place or fault.rank else None,
        step_right=fault.onset - fault.before <= step <= fault.onset + fault.after,
        others=others + [f"+{incident['kind']}" for incident in incidents[1:]],
    )


def share(values: Iterable[bool]) -> str:
    """``0.93 (26/28)``."""
    values = list(values)
    return f"{sum(values) / max(1, len(values)):.3f} ({sum(values)}/{len(values)})"


def baseline(results: Sequence[Judged]) -> dict[str, str]:
    """Kind → its commonest true cause among these very cases: the best that knowing the kind alone can do."""
    causes: dict[str, Counter[str]] = defaultdict(Counter)
    for each in results:
        causes[each.kind][each.truth] += 1
    return {kind: counts.most_common(1)[0][0] for kind, counts in causes.items()}


def reliability(results: Sequence[Judged]) -> list[tuple[str, int, float, float]]:
    """Per bin of confidence: its name, cases, mean confidence, share of right causes."""
    rows = []
    for low, high in itertools.pairwise(BINS):
        inside = [each for each in results if each.incidents and low <= each.confidence < high]
        if inside:
            mean = sum(each.confidence for each in inside) / len(inside)
            right = sum(each.cause_right for each in inside) / len(inside)
            rows.append((f"{low:.2f} to {min(high, 1):.2f}", len(inside), mean, right))
    return rows


def summary(results: Sequence[Judged]) -> dict[str, Any]:
    """The figures of the table, as they go into the JSON."""
    guess = baseline(results)
    rows = reliability(results)
    told = sum(count for _, count, _, _ in rows)
    return {
        "cases": len(results),
        "faults": len({each.fault for each in results}),
        "cause": share(each.cause_right for each in results),
        "cause, kind alone": share(bool(each.kind) and guess[each.kind] == each.truth for each in results),
        "place": share(each.place_right for each in results if each.place_right is not None),
        "first step": share(each.step_right for each in results),
        "one incident": share(each.incidents == 1 for each in results),
        "found": share(each.incidents > 0 for each in results),
        "calibration error": round(sum(n * abs(mean - right) for _, n, mean, right in rows) / max(1, told), 3),
    }


def report(results: Sequence[Judged]) -> str:
    """Tables in Markdown."""
    lines = ["", "| measure | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in summary(results).items()]
    lines += ["", "| confidence | cases | mean | right |", "|---|---|---|---|"]
    lines += [f"| {name} | {count} | {mean:.3f} | {right:.3f} |" for name, count, mean, right in reliability(results)]
    confused = Counter((each.truth, each.cause or "nothing found") for each in results if not each.cause_right)
    lines += ["", "| the cause was | was called | cases |", "|---|---|---|"]
    lines += [f"| `{truth}` | `{called}` | {count} |" for (truth, called), count in confused.most_common()]
    return "\n".join(lines)


def line(each: Judged) -> str:
    """One case, as it ends."""
    marks = "".join(
        mark if good else mark.upper() if good is not None else "-"
        for mark, good in zip(
            "cpis", (each.cause_right, each.place_right, each.incidents == 1, each.step_right), strict=True
        )
    )
    right = each.cause_right and each.place_right is not False and each.incidents == 1
    told = f"{each.kind or 'nothing'} @{each.first_step} {each.where!r} {each.cause} {each.confidence:.2f}"
    return f"{'ok   ' if right else 'WRONG'} {marks} {each.fault}/{each.family}/{each.seed}: {told}  {each.others}"


def measured(case: tuple[Fault, str, int], directory: Path) -> Judged:
    result = judge(*case, diagnosed(*case, directory))
    print(line(result), flush=True)
    return result


def main() -> None:
    """Run the cases and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="parts of case names, separated by commas")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time")
    parser.add_argument("--keep", type=Path, help="where runs stay; those found there are diagnosed and not run again")
    parser.add_argument("--output", type=Path, help="a JSON file")
    given = parser.parse_args()
    chosen = list(cases(given.only, range(given.first_seed, given.first_seed + given.seeds)))
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(given.jobs) as pool:
        directory = given.keep or Path(temporary)
        results = list(pool.map(lambda case: measured(case, directory), chosen))
    print(report(results))
    if given.output:
        document = {"summary": summary(results), "cases": [each._asdict() for each in results]}
        given.output.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
