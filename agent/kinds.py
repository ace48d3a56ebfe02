"""What may follow from what: the small table by which findings become one incident.

Written down from mechanism, not learned. ``LEADS_TO[a]`` are the kinds that a fault of kind ``a`` can
itself bring about; anything else that happens beside it is another fault.
"""

from torchvitals.detectors.detector import Finding

CAUSAL_RANK: dict[str, int] = {
    kind: rank
    for rank, kinds in enumerate(
        (
            # the machine and the data come before what is made of them
            ("gpu_fault", "gpu_throttle", "drift", "duplicate_data", "train_mode_inference", "miswired"),
            # forward
            ("saturation", "dead_relu", "nonfinite"),
            # loss
            ("loss_scale_collapse", "loss_spike", "lost_progress"),
            # backward
            ("unsynced_backward", "explosion", "vanishing"),
            # optimizer
            ("update_ratio", "stuck_parameters", "divergence", "overfit", "plateau"),
            # ranks
            ("collective_mismatch", "desync", "straggler", "nondeterminism"),
            # resources and speed
            ("memory_leak", "recompile_storm", "input_bound", "cold_start", "queue_growth"),
            ("memory_pressure", "gpu_idle", "slowdown", "latency", "canary_regression", "prediction_drift"),
            # process
            ("hang", "error_rate", "crash"),
        )
    )
    for kind in kinds
}
"""Tie-break when findings begin at the same step: data, forward, loss, backward, optimizer, ranks, process."""

_NUMBERS_BROKEN = (
    "nonfinite", "explosion", "loss_spike", "divergence", "dead_relu", "saturation", "vanishing",
    "update_ratio", "stuck_parameters", "loss_scale_collapse", "plateau",
)  # fmt: skip

LEADS_TO: dict[str, frozenset[str]] = {
    # too large a gradient or step wrecks weights, and every symptom of wrecked weights may follow; where one
    # is the plainer word for the same event (explosion, divergence, loss_spike) the arrow goes one way only
    "explosion": frozenset({*_NUMBERS_BROKEN, "crash"}),
    "divergence": frozenset({*_NUMBERS_BROKEN, "crash"} - {"explosion"}),
    "update_ratio": frozenset({*_NUMBERS_BROKEN} - {"explosion", "divergence"}),
    "lost_progress": frozenset({*_NUMBERS_BROKEN}),
    "loss_spike": frozenset({"nonfinite", "loss_scale_collapse", "plateau"}),
    # NaN weights stay NaN: nothing that comes later is news
    "nonfinite": frozenset({*_NUMBERS_BROKEN, "desync", "prediction_drift", "crash"}),
    "loss_scale_collapse": frozenset({"nonfinite", "plateau", "stuck_parameters", "crash"}),
    # units that pass nothing on starve what lies before them and stop learning
    "dead_relu": frozenset({"vanishing", "plateau", "stuck_parameters", "divergence"}),
    "saturation": frozenset({"vanishing", "plateau", "stuck_parameters"}),
    "vanishing": frozenset({"plateau", "stuck_parameters", "dead_relu"}),
    "stuck_parameters": frozenset({"plateau"}),
    # a loop that is not wired as it should be trains slowly, badly, or not at all
    "miswired": frozenset({"plateau", "stuck_parameters", "overfit", "divergence", "loss_spike"}),
    # ranks that are different models train neither well
    "unsynced_backward": frozenset({"desync", "divergence", "loss_spike", "plateau"}),
    "desync": frozenset({"divergence", "loss_spike", "explosion", "nonfinite", "plateau", "crash"}),
    "duplicate_data": frozenset({"overfit", "plateau"}),
    "collective_mismatch": frozenset({"hang", "desync", "crash"}),
    "hang": frozenset({"crash", "slowdown"}),
    "straggler": frozenset({"slowdown", "hang", "input_bound"}),
    # memory runs out gradually, then suddenly
    # what a service keeps of its requests may go into the next answers: keys and values, a history, neighbours
    "memory_leak": frozenset({"memory_pressure", "slowdown", "latency", "prediction_drift", "crash"}),
    "memory_pressure": frozenset({"slowdown", "latency", "crash"}),
    "gpu_fault": frozenset({"nonfinite", "explosion", "desync", "hang", "crash"}),
    "gpu_throttle": frozenset({"slowdown", "straggler", "latency"}),
    "input_bound": frozenset({"slowdown", "gpu_idle"}),
    "recompile_storm": frozenset({"slowdown", "latency", "memory_leak", "memory_pressure"}),
    "slowdown": frozenset({"gpu_idle", "latency", "queue_growth"}),
    # services
    "drift": frozenset({"prediction_drift", "error_rate", "canary_regression"}),
    "train_mode_inference": frozenset({"prediction_drift", "nondeterminism"}),
    "latency": frozenset({"queue_growth", "error_rate"}),
    "queue_growth": frozenset({"latency", "error_rate"}),
    "cold_start": frozenset({"latency"}),
}

LASTING = frozenset(
    {"nonfinite", "desync", "unsynced_backward", "dead_relu", "saturation", "vanishing", "stuck_parameters",
     "memory_leak", "memory_pressure", "loss_scale_collapse", "drift", "miswired"}
)  # fmt: skip
"""States that stay until somebody acts: what they lead to belongs to them however much later it comes."""

LOSSES_WITHOUT_END = ("endless_momentum", "invalid_targets", "no_log_probabilities")
"""Broken relations under which numbers grow for as long as the job runs."""

SOON_AT_LEAST, SOON_AT_MOST, SOON_SHARE = 100, 500, 0.1
"""A passing fault is followed by its consequences within a tenth of the run so far, 100 to 500 steps: the
detectors' windows are tens of steps, and sampled steps up to 100 apart."""
EARLY_STEPS = 25
"""A consequence may seem to begin this much before its cause: two detectors date an onset by windows of their own."""

KILLS = (9, 15)
"""SIGKILL and SIGTERM: somebody else ended the process."""
OUT_OF_MEMORY = ("memory_leak", "memory_pressure")


def soon(step: int) -> int:
    """How many steps after ``step`` still count as *just after*.

    >>> soon(0), soon(2000), soon(1_000_000)
    (100, 200, 500)
    """
    return int(min(max(SOON_AT_LEAST, step * SOON_SHARE), SOON_AT_MOST))


def follows(cause: Finding, effect: Finding) -> bool:
    """Whether ``effect`` can be a consequence of ``cause``, by kind and by time.

    >>> early = Finding(kind="explosion", severity="error", first_step=40, step=42, value=1e3, threshold=9.0)
    >>> late = Finding(kind="nonfinite", severity="critical", first_step=51, step=51, value=0.0, threshold=0.0)
    >>> follows(early, late), follows(late, early)
    (True, False)
    """
    # relations that hold until the code changes
    signal, relation = cause.evidence.get("signal"), cause.evidence.get("relation")
    if signal in ("gradients_reset", "turned_loss") or relation in LOSSES_WITHOUT_END:
        return effect.kind in _NUMBERS_BROKEN and effect.first_step >= cause.first_step
    # a batch norm that does not follow its layer any more is no norm
    if relation == "left_in_evaluation_mode" and effect.kind in _NUMBERS_BROKEN:
        return effect.first_step >= cause.first_step
    # answers of a model that is put in training mode are others from that request on, and what changes later is not it
    if relation == "served_in_training_mode" and effect.kind == "prediction_drift":
        return -EARLY_STEPS <= effect.first_step - cause.first_step <= soon(cause.first_step)
    if signal == "chance" and effect.kind != "plateau":  # the loss alone: whatever else is found says more
        return False
    if {cause.kind, effect.kind} == {"memory_leak", "slowdown"} and "gradual" in _shapes(cause, effect):
        # dated by windows of their own; whichever hurts more is what is told of the container that grows
        leak = cause if cause.kind == "memory_leak" else effect
        return (leak.severity != "warning") == (leak is cause)
    if effect.kind not in LEADS_TO.get(cause.kind, frozenset()):
        return False
    if effect.kind == "crash" and not _crash_fits(cause, effect):
        return False
    if effect.evidence.get("signal") == "chance" and "alive_at" in cause.evidence:
        return not outlived(effect, cause)  # units that still worked at a guess were not what made it one
    if effect.kind == "plateau":  # dated to the first loss, whatever has happened since
        return cause.first_step <= effect.step
    # one loader told twice, each time dated by other windows
    if (cause.kind, effect.kind) == ("straggler", "input_bound") and cause.rank == effect.rank is not None:
        return abs(effect.first_step - cause.first_step) <= soon(cause.step)
    mutual = cause.kind in LEADS_TO.get(effect.kind, frozenset()) and effect.evidence.get("signal") != "chance"
    if effect.first_step < cause.first_step - (0 if mutual else EARLY_STEPS):
        return False
    if cause.kind in LASTING or effect.first_step <= cause.step + soon(cause.step):
        return True
    return cause.kind in ("explosion", "divergence") and _still_high(cause, effect)


def outlived(event: Finding, units: Finding) -> bool:
    """Whether units that have died, or gone flat, were seen to work after ``event`` had begun."""
    return int(units.evidence.get("alive_at", -1)) >= event.first_step


def same_fault(first: Finding, second: Finding) -> bool:
    """Whether two findings of one kind tell of one fault: a lasting state, what creeps, or symptoms close in time.

    Features of a service drift one by one for reasons of their own; all other lasting states spread.
    """
    if first.kind != second.kind or first.evidence.get("relation") != second.evidence.get("relation"):
        return first.kind == second.kind == "stuck_parameters"
    if first.kind == "slowdown" and "gradual" in _shapes(first, second):
        return True
    if first.kind in LASTING and first.kind != "drift" and first.optimizer == second.optimizer:
        return True
    early, late = sorted((first, second), key=lambda finding: finding.first_step)
    return late.first_step <= early.step + soon(early.step)


def _shapes(*findings: Finding) -> list[str]:
    return [str(finding.evidence.get("shape")) for finding in findings]


def _still_high(cause: Finding, effect: Finding) -> bool:
    """Whether the loss stopped being finite from where an explosion had left it, however long that took."""
    before = effect.evidence.get("loss_before")
    return before is not None and abs(before) > cause.threshold


def _crash_fits(cause: Finding, crash: Finding) -> bool:
    """A kill is what memory faults end in; an exception or an abort is what the others end in.

    A job that stands still ends in whatever somebody, or a timeout, does about it.
    """
    evidence = crash.evidence
    if cause.kind == "hang":
        return not evidence.get("oom_kills")
    told = " ".join(str(evidence.get(key, "")) for key in ("type", "message", "cause")).lower()
    for_memory = bool(evidence.get("oom_kills")) or "memory" in told
    killed = evidence.get("signal") in KILLS or bool(evidence.get("gone"))
    return killed or for_memory if cause.kind in OUT_OF_MEMORY else not (killed or for_memory)
