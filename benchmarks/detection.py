"""How often detectors are right: `python -m benchmarks.detection [PART ...] [--seeds N] [--json FILE]`.

Parts: `trainings` (real small ones, healthy and with a fault put in), `drift` (data sets of scikit-learn and river),
`leaks`, `nulls` (streams in which nothing happens). Every table has the dummies "always" and "never", and what
others do; `pip install river` adds its detectors and data. Trainings are made once and kept in `--cache`.
"""

import argparse
import json
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

sys.path.append(str(Path(__file__).parent))  # `python -m benchmarks.detection` finds its neighbours, too

import drift_cases
import null_streams
import recordings
from recording import Recording
from rivals import NO_RIVER, rivals
from scores import MILLION, Verdict, judged, score, table
from torchvitals.detectors import DETECTORS
from torchvitals.detectors.detector import DetectorAxis, Reading
from torchvitals.detectors.memory_leak import MemoryLeak
from torchvitals.detectors.memory_pressure import MemoryPressure

AXES: tuple[DetectorAxis, ...] = ("feature", "module", "parameter", "rank", "replica")
NORMS = ("gradient_norm", "gradient_norm_unclipped", "tripwire_norm")
ABRUPT = ("rate_jump", "batch", "log_of_zero", "root_at_zero", "swollen", "wild_start", "rate_from_start")
"""Beginnings of the names of faults that act in one step."""


def ours(recording: Recording) -> list[tuple[int, str]]:
    """Step and kind of everything that our detectors of scalars say."""
    detectors = [cls() for cls in DETECTORS if cls.axis == "rank"]
    found = []
    for step, values in enumerate(recording.steps):
        reading = Reading.of(step, 0.1 * step, **values)
        found += [(finding.step, finding.kind) for each in detectors for finding in each.update(reading)]
    return found


def has_effect(recording: Recording) -> bool:
    """Whether a fault shows at all, told without any detector: batch norm shrugs off weights ten times too large.

    It does when something stops being finite, a loss is ten times above all before, half a block of 16 is twice as high
    as the 32 before or the start, gradients are never cleared, or a run that is faulty from its start ends above it.
    """
    if "missing_zero_grad" in recording.causes:
        return True
    loss = np.array([values["loss"] for values in recording.steps])
    norms = [values.get(name, 0.0) for values in recording.steps[recording.onset :] for name in NORMS]
    after = loss[recording.onset :]
    if not (np.isfinite(after).all() and np.isfinite(norms).all()):
        return True
    before = np.abs(loss[max(0, recording.onset - 32) : recording.onset])
    level = float(np.median(before)) if len(before) else abs(float(loss[0]))
    worst = max(float(np.median(np.abs(after[place : place + 16]))) for place in range(0, max(1, len(after) - 15), 4))
    highest = float(np.abs(loss[: recording.onset]).max(initial=abs(float(loss[0]))))
    ended = not recording.onset and len(after) > 60 and float(np.median(after[-30:])) > 1.02 * level
    return worst > 2 * level or float(np.abs(after).max()) > 10 * highest or ended


def trainings(seeds: Iterable[int], cache: Path) -> dict[str, Any]:
    """Real trainings: all methods, then ours by fault."""
    verdicts: dict[str, list[Verdict]] = defaultdict(list)
    by_fault: dict[str, list[Verdict]] = defaultdict(list)
    counts: Counter[str] = Counter()
    early: list[bool] = []
    told: list[str] = []
    for recording in _recordings(seeds, cache):
        if not recording.healthy and not has_effect(recording):
            counts["faults without effect"] += 1
            continue
        counts["healthy" if recording.healthy else "faulty"] += 1
        onset, steps = -1 if recording.healthy else recording.onset, len(recording.steps)
        found = ours(recording)
        wrong = [step for step, kind in found if recording.healthy or step < onset]
        right = [step for step, kind in found if step >= onset and kind in recording.kinds]
        mine = judged(sorted([*wrong, *right]), onset=onset, steps=steps)
        verdicts["torchvitals"].append(mine)
        told += [f"{recording.name} (seed {recording.seed}): {kind} at {step}" for step, kind in found if step in wrong]
        if mine.faulty:
            by_fault[recording.name.split("/")[0]].append(mine)
            if mine.hit < 0:
                told.append(f"{recording.name} (seed {recording.seed}): missed, onset {onset}, said {found}")
            early += _early(recording, found)
        for name, start in rivals().items():
            watch = start()
            alarms = [step for step, values in enumerate(recording.steps) if watch(values)]
            verdicts[name].append(judged(alarms, onset=onset, steps=steps))
    scores = {name: score(each) for name, each in verdicts.items()}
    print(f"\n{dict(counts)}")
    print(table(scores))
    print("\nours by fault")
    print(table({name: score(each) for name, each in sorted(by_fault.items())}))
    abrupt = [v.hit - v.onset for name, each in by_fault.items() if name.startswith(ABRUPT) for v in each if v.hit >= 0]
    print(f"\nabrupt faults: median delay {statistics.median(abrupt):.0f} steps")
    print(f"explosion told before the loss was not finite: {sum(early)} of {len(early)} runs that end so after growing")
    print(*told, sep="\n")
    return {
        "counts": dict(counts),
        "methods": msgspec.to_builtins(scores),
        "by_fault": msgspec.to_builtins({name: score(each) for name, each in by_fault.items()}),
        "abrupt_delay": statistics.median(abrupt),
        "explosion_before_nonfinite": [sum(early), len(early)],
        "wrong": told,
    }


def _recordings(seeds: Iterable[int], cache: Path) -> Iterable[Recording]:
    for seed in seeds:
        yield from recordings.healthy(cache, seed)
        yield from recordings.faulty(cache, seed)


def _early(recording: Recording, found: list[tuple[int, str]]) -> list[bool]:
    """Whether growth was told of before the loss was not finite; nothing where it did not grow, or not to an end.

    A loss that is not finite in the very step in which it first grows leaves nothing to be told before.
    """
    loss = np.array([values["loss"] for values in recording.steps])
    broken = np.flatnonzero(~np.isfinite(loss))
    if not len(broken) or "explosion" not in recording.kinds:
        return []
    before = loss[: broken[0]]
    reference = np.abs(before[: max(1, recording.onset)]).max(initial=0.0)
    if not (np.abs(before[recording.onset :]) > 5 * reference).any():
        return []
    return [any(step < broken[0] for step, kind in found if kind in recording.kinds)]


def drift(seeds: Iterable[int]) -> dict[str, Any]:
    """Drift in data sets of others."""
    all_cases = [case for seed in seeds for case in drift_cases.cases(seed)]
    scores, missed = {}, []
    for name, judge in drift_cases.methods().items():
        verdicts = []
        for case in all_cases:
            verdicts.append(judged(judge(case), onset=case.onset, steps=len(case.rows)))
            if name == "torchvitals" and (verdicts[-1].false or (case.onset >= 0 and verdicts[-1].hit < 0)):
                missed.append(f"{case.data}, {case.change}: {'false alarm' if verdicts[-1].false else 'missed'}")
        scores[name] = score(verdicts)
    print(f"\n{len(all_cases)} streams of {len({case.data for case in all_cases})} data sets")
    print(table(scores, "row"))
    print(*missed, sep="\n")
    return {"methods": msgspec.to_builtins(scores), "wrong": missed}


def leaks(seeds: int) -> dict[str, Any]:
    """How much of the headroom is gone when a leak is told of, over rates that fill it in 400 to 100,000 steps."""
    rng = np.random.default_rng(seeds)
    gone, missed = [], 0
    for steps in np.geomspace(400, 100_000, 10).astype(int).tolist():
        for onset in (0, 500):
            left, base = float(rng.uniform(4e9, 64e9)), 1e9
            detectors = (MemoryLeak(), MemoryPressure())
            for step in range(onset + steps):
                kept = left * max(0, step - onset) / steps
                values = {"rss_bytes": base + kept + 3e5 * rng.normal()} if step % 4 == 0 else {}
                if step % 20 == 0:
                    values["memory_headroom_bytes"] = left - kept
                if [finding for each in detectors for finding in each.update(Reading.of(step, **values))]:
                    gone.append(kept / left)
                    break
            else:
                missed += 1
    print(
        f"\nleaks: {len(gone)} of {len(gone) + missed} told of, with {max(gone):.1%} of the headroom gone at most",
        end="",
    )
    print(f", {statistics.median(gone):.2%} in the median")
    return {"told": len(gone), "missed": missed, "worst": max(gone), "median": statistics.median(gone)}


def nulls(seeds: Iterable[int], steps: int, subjects: int, axes: Iterable[DetectorAxis]) -> dict[str, Any]:
    """False alarms of all detectors along each axis on streams in which nothing happens; of others on their losses."""
    found: Counter[str] = Counter()
    looked: Counter[str] = Counter()
    for seed, axis, kind in product(seeds, axes, null_streams.NULLS):
        share = {"rank": 1, "feature": 4, "replica": 16}.get(axis, 8)  # the others cost more for each reading
        detectors = [cls() for cls in DETECTORS if cls.axis == axis]
        shared: dict[str, Any] = {}
        for reading in null_streams.readings(axis, kind, steps // share, subjects, seed=seed + 1):
            reading.shared = shared
            for each in detectors:
                for finding in each.update(reading):
                    found[f"{axis} {each.kind}"] += 1
                    print(
                        f"  {axis} {kind} (seed {seed}): {each.kind} at {finding.step}, {finding.evidence}", flush=True
                    )
        looked[axis] += steps // share * subjects
    rates = {name: MILLION * count / looked[name.split()[0]] for name, count in sorted(found.items())}
    total = sum(rates.values())
    print(
        f"\nnull streams: {dict(looked)} steps × subjects; false alarms in a million, ours, all together: {total:.2f}"
    )
    print(*[f"  {name}: {rate:.2f}" for name, rate in rates.items() if rate], sep="\n")
    others = {name: _on_nulls(start, min(steps, 20_000)) for name, start in rivals().items()}
    print(*[f"  {name}: {rate:,.0f}" for name, rate in others.items()], sep="\n")
    return {"looked": dict(looked), "rates": rates, "total": total, "rivals": others}


def _on_nulls(start: Any, steps: int) -> float:
    """A rival's false alarms in a million steps."""
    alarms = 0
    for kind in null_streams.NULLS:
        watch = start()
        said = []
        for step, reading in enumerate(null_streams.readings("rank", kind, steps, 1, seed=2)):
            if watch({name: float(reading.values[name][0]) for name in ("loss", "gradient_norm")}):
                said.append(step)
        alarms += judged(said, onset=-1, steps=steps).false
    return MILLION * alarms / (steps * len(null_streams.NULLS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("trainings", "drift", "leaks", "nulls")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}; all by default")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each kind, draws of each data set or stream")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--axes", nargs="*", choices=AXES, default=AXES, help="of the null streams")
    parser.add_argument("--steps", type=int, default=16_000, help="of each null stream")
    parser.add_argument("--subjects", type=int, default=64, help="that are watched at once in a null stream")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "torchvitals-benchmarks")
    parser.add_argument("--json", type=Path, help="write all figures there")
    chosen = parser.parse_args()
    if unknown := set(chosen.parts) - set(parts):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    if "river ADWIN" not in rivals():
        print(NO_RIVER)
    begin = {
        "trainings": lambda: trainings(seeds, chosen.cache),
        "drift": lambda: drift(seeds),
        "leaks": lambda: leaks(chosen.seeds),
        "nulls": lambda: nulls(seeds, chosen.steps, chosen.subjects, chosen.axes),
    }
    figures = {}
    for part in chosen.parts or parts:
        began = time.perf_counter()
        figures[part] = begin[part]()
        print(f"({part}: {time.perf_counter() - began:.0f} s)", flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
