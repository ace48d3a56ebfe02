"""Why two runs parted: every explanation with what speaks for it, ranked.

Each reason looks at the first difference and at what else differs, and answers with sentences worth some nats of
log-odds, as the causes of an incident do; ``unknown`` is worth 0. What follows from the first difference (batches
that a diverged policy collected, generators that moved on differently) is no reason for it.
"""

import math
from collections.abc import Callable, Sequence

import msgspec
from torchvitals.agent.case import Clue
from torchvitals.agent.compare.fact_differences import FactDifference
from torchvitals.agent.compare.first_difference import BEFORE_FIRST, Difference
from torchvitals.agent.compare.recorded import Recorded
from torchvitals.agent.compare.scene import Scene, last_batch
from torchvitals.agent.incident import RankedCause

LIKELY = 0.01
FEW = 4
"""More differences than this are counted, not listed."""


class Reason(msgspec.Struct, frozen=True):
    """An explanation: its word, what to do, and how it weighs a scene (no clues: it cannot be)."""

    word: str
    remedy: str
    weigh: Callable[[Scene], list[Clue]]


def rank_reasons(seen: Scene) -> list[tuple[RankedCause, str]]:
    """All reasons that are likely, the best first, each with its remedy."""
    weighed = [(reason, clues) for reason in REASONS if (clues := reason.weigh(seen))]
    scores = [sum(clue.weight for clue in clues) for _, clues in weighed]
    highest = max([0.0, *scores])
    total = math.exp(-highest) + sum(math.exp(score - highest) for score in scores)
    ranked = [
        (_ranked(reason.word, math.exp(score - highest) / total, clues), reason.remedy)
        for (reason, clues), score in zip(weighed, scores, strict=True)
    ]
    ranked.append((_ranked("unknown", math.exp(-highest) / total, []), UNKNOWN))
    return sorted(
        (pair for pair in ranked if pair[0].confidence >= LIKELY or len(ranked) == 1),
        key=lambda pair: (-pair[0].confidence, pair[0].cause),
    )


# -- the reasons ------------------------------------------------------------------------------------------------


def _different_model(seen: Scene) -> list[Clue]:
    facts = seen.of("model")
    return [Clue(6.0, f"the models differ: {listed(facts)}")] if facts else []


def _different_setting(seen: Scene) -> list[Clue]:
    facts = seen.of("setting")
    first = seen.first
    clues = [Clue(5.0, f"settings differ: {listed(facts)}")] if facts else []
    if first.signal == "learning_rate" and first.values:
        clues.append(Clue(4.0, f"at step {first.step} the learning rate was {pair(first)}"))
    if facts and seen.data_differ and not any(fact.what.startswith("loader") for fact in facts):
        clues.append(
            Clue(-3.0, f"but other batches came as early as step {seen.batch}, and no setting of the loader differs")
        )
    return clues


def _different_seed(seen: Scene) -> list[Clue]:
    facts = seen.of("seed")
    if not facts:
        return []
    clues = [Clue(4.5, f"seeds differ: {listed(facts)}")]
    if seen.first.step == BEFORE_FIRST:
        clues.append(Clue(1.0, "the weights differed before the first step"))
    return clues


def _different_start(seen: Scene) -> list[Clue]:
    if seen.first.step != BEFORE_FIRST or seen.of("seed"):
        return []
    text = "the weights differed before the first step, and torch was given the same seed"
    stood = [g.name for g in seen.generators if g.step == BEFORE_FIRST and g.name in ("torch", "cuda")]
    if stood:
        return [
            Clue(3.0, text),
            Clue(0.5, "torch's generator stood elsewhere too: more or fewer numbers had been drawn"),
        ]
    return [Clue(4.5, f"{text}; its generator stood at the same place: they were loaded, or made by another generator")]


def _unseeded_generator(seen: Scene) -> list[Clue]:
    drawn = [g for g in seen.drawn if g.name in ("python", "numpy")]
    torch_too = [g for g in seen.drawn if g.name in ("torch", "cuda")]
    if seen.of("seed") or not (drawn or torch_too):
        return []
    names = " and ".join(GENERATORS[g.name] for g in [*drawn, *torch_too])
    at = min(g.step for g in [*drawn, *torch_too])
    when = "before the first step" if at == BEFORE_FIRST else f"at step {at}"
    clues = [Clue(4.0 if drawn else 2.5, f"{names} stood elsewhere {when}, and is drawn from in every few steps")]
    if seen.data_differ:
        clues.append(
            Clue(1.0, f"the batches differ from step {seen.batch} on, as random augmentation or order would make them")
        )
    return clues


def _different_data(seen: Scene) -> list[Clue]:
    if not seen.data_differ:
        return []
    clues = [Clue(3.0, f"other batches came: the first that differs is that of step {seen.batch}")]
    if seen.batch == 0:
        clues.append(Clue(0.5, "from the very first one"))
    if not seen.drawn:
        clues.append(
            Clue(
                1.0,
                "all generators stood alike: other files, another order, or a generator of the job's own",
            )
        )
    return clues


def _different_code(seen: Scene) -> list[Clue]:
    facts = [fact for fact in seen.of("code") if fact.what != "commit"] or seen.of("code")
    if not facts:
        return []
    files = ", ".join(fact.what for fact in facts[:FEW]) + (f" and {len(facts) - FEW} more" if len(facts) > FEW else "")
    return [Clue(3.5, f"the code differs: {files}")]


def _different_software(seen: Scene) -> list[Clue]:
    facts = [fact for fact in seen.of("software", "machine") if fact.what != "host"]
    return [Clue(3.5, f"versions or machines differ, which promise no equal bits: {listed(facts)}")] if facts else []


def _different_flags(seen: Scene) -> list[Clue]:
    facts = seen.of("flag")
    clues = [Clue(3.5, f"switches differ: {listed(facts)}")] if facts else []
    if facts and all(fact.what in ("threads", "OMP_NUM_THREADS", "MKL_NUM_THREADS") for fact in facts):
        clues.append(Clue(0.3, "another number of threads sums in another order"))
    return clues


def _different_command(seen: Scene) -> list[Clue]:
    facts = [fact for fact in seen.of("command") if fact.what == "command"]
    return [Clue(1.5, f"the commands differ: {facts[0].a} against {facts[0].b}")] if facts else []


def _nondeterministic_operation(seen: Scene) -> list[Clue]:
    named = repeats(seen.a, seen.b)
    if named is not None:
        return [Clue(8.0, named)]
    if seen.data_differ or seen.drawn or seen.first.step == BEFORE_FIRST or seen.first.stage in ("setting", "batch"):
        return []
    clues = [Clue(2.5, _excluded(seen))]
    if seen.batches:
        clues.append(
            Clue(1.0, f"{seen.batches} batches up to then were equal, the last ones of step {last_batch(seen)}")
        )
    flags = seen.a.first.facts.get("flags", {})
    threads = flags.get("threads", 0)
    device = seen.a.first.hello.device
    if device != "cpu" and not flags.get("deterministic_algorithms"):
        clues.append(Clue(1.0, f"on {device} several operations add in no fixed order unless torch is told otherwise"))
    elif threads and threads > 1:
        clues.append(Clue(0.5, f"{threads} threads may add in any order"))
    elif threads == 1:
        clues.append(
            Clue(
                -1.5,
                "one thread on a CPU adds in a fixed order; time, addresses or a generator of the job's own are left",
            )
        )
    return clues


def _excluded(seen: Scene) -> str:
    known = [word for word, there in (
        ("seeds", "seeds" in seen.a.first.facts), ("code", "code" in seen.a.first.facts),
        ("settings", True), ("versions", "versions" in seen.a.first.facts),
        ("generators", bool(seen.a.first.digests.get(("generator", "generator")))),
    ) if there]  # fmt: skip
    facts = [fact for fact in seen.facts if fact.what != "host" and fact.group != "command"]
    if facts:
        return f"nothing random explains it, but {len(facts)} facts differ"
    return f"{', '.join(known)} are equal, and yet {seen.first.signal} differs at step {seen.first.step}"


def repeats(*runs: Recorded) -> str | None:
    """What the job saw when it ran one of its own steps again (``torchvitals run --exact``)."""
    for run in runs:
        for event in run.first.events:
            if event.kind == "repeat" and event.details.get("operation"):
                told = event.details
                line = f" at {told['line']}" if told.get("line") else ""
                return (
                    f"run again on the same inputs, {told['operation']}{line} gave other bits "
                    f"(step {event.step}, {told.get('phase', 'forward')})"
                )
    return None


GENERATORS = {
    "torch": "torch's generator", "cuda": "the device's generator", "python": "Python's `random`",
    "numpy": "numpy's global generator",
}  # fmt: skip
UNKNOWN = (
    "Record both again with torchvitals run --exact, which digests weights, gradients and batches at every step and "
    "runs some steps twice: the first layer, and often the operation, can then be named."
)
REASONS: tuple[Reason, ...] = (
    Reason("different_model", "Compare runs of one model, or read the side-by-side figures only.", _different_model),
    Reason(
        "different_setting", "Set both alike to compare bits; otherwise this is what you changed.", _different_setting
    ),
    Reason(
        "different_seed", "Give both runs the same seed before the model and the loaders are made.", _different_seed
    ),
    Reason("different_start", "Start both from one checkpoint, or seed before the model is made.", _different_start),
    Reason(
        "unseeded_generator",
        "Seed it at the start of the script (random.seed, numpy.random.seed, torch.manual_seed), and in loader "
        "workers with worker_init_fn and a seeded generator=.",
        _unseeded_generator,
    ),
    Reason(
        "different_data",
        "Look at what chooses the batches: the list of files (sort it), the sampler's generator=, the number of "
        "workers, sets whose order depends on PYTHONHASHSEED.",
        _different_data,
    ),
    Reason(
        "different_code", "Run the same commit to compare bits; otherwise this is what you changed.", _different_code
    ),
    Reason("different_software", "Run both with the same versions on the same kind of machine.", _different_software),
    Reason("different_flags", "Set the switches alike, the number of threads included.", _different_flags),
    Reason("different_command", "Run the same command to compare bits.", _different_command),
    Reason(
        "nondeterministic_operation",
        "torch.use_deterministic_algorithms(True) makes torch take an ordered algorithm or name the operation that has "
        "none; on a GPU also set CUBLAS_WORKSPACE_CONFIG=:4096:8. To have the operation and its line named: "
        "torchvitals compare RUN --replay.",
        _nondeterministic_operation,
    ),
)


def listed(facts: Sequence[FactDifference]) -> str:
    """The differences in a few words: ``loader.batch_size 8 against 16``."""
    shown = [f"{fact.what} {_short(fact.a)} against {_short(fact.b)}" for fact in facts[:FEW]]
    return "; ".join(shown) + (f"; and {len(facts) - FEW} more" if len(facts) > FEW else "")


def pair(difference: Difference) -> str:
    """Both values with all their digits."""
    a, b = difference.values or (float("nan"), float("nan"))
    return f"{a!r} in A and {b!r} in B"


def _short(value: object) -> str:
    return "none" if value is None else str(value)[:60]


def _ranked(word: str, share: float, clues: Sequence[Clue]) -> RankedCause:
    ordered = sorted(clues, key=lambda clue: -abs(clue.weight))
    return RankedCause(
        cause=word,
        confidence=round(share, 4),
        evidence=[clue.text for clue in ordered if clue.weight > 0],
        against=[clue.text for clue in ordered if clue.weight < 0],
    )
