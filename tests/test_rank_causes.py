"""Of the causes that explain ranks, the right one wins by its evidence."""

import msgspec
import pytest
from torchvitals.agent.case import Case, headline
from torchvitals.agent.causes.collective_mismatch import CollectiveMismatch
from torchvitals.agent.causes.corrupted_gradient import CorruptedGradient
from torchvitals.agent.causes.dataloader_stall import DataloaderStall
from torchvitals.agent.causes.duplicated_augmentation_seed import DuplicatedAugmentationSeed
from torchvitals.agent.causes.exception import UncaughtException
from torchvitals.agent.causes.no_sync_left_on import NoSyncLeftOn
from torchvitals.agent.causes.out_of_memory_kill import OutOfMemoryKill
from torchvitals.agent.causes.rank_local_load import RankLocalLoad
from torchvitals.agent.causes.rank_local_update import RankLocalUpdate
from torchvitals.agent.causes.slow_communication import SlowCommunication
from torchvitals.agent.causes.slow_dependency import SlowDependency
from torchvitals.agent.causes.unknown import Unknown
from torchvitals.agent.causes.unsynced_forward import UnsyncedForward
from torchvitals.agent.diagnosis import rank_causes
from torchvitals.agent.history import History
from torchvitals.agent.ranks import first_difference, sharing
from torchvitals.detectors.detector import Finding
from torchvitals.signals.records import Event

CAUSES = (
    CollectiveMismatch,
    CorruptedGradient,
    DataloaderStall,
    DuplicatedAugmentationSeed,
    UncaughtException,
    NoSyncLeftOn,
    OutOfMemoryKill,
    RankLocalLoad,
    RankLocalUpdate,
    SlowCommunication,
    SlowDependency,
    UnsyncedForward,
    Unknown,
)


def best(case):
    """The winning cause and its opinion, as the diagnosis ranks them."""
    kinds = {finding.kind for finding in case.findings}
    causes = [cause() for cause in CAUSES if not cause.explains or kinds & set(cause.explains)]
    opinions = [(cause, opinion) for cause in causes if (opinion := cause.weigh(case))]
    ranked, opinion = rank_causes(opinions)[0]
    assert len(opinion.title) < 80
    return ranked.cause, ranked.confidence, opinion


def case(finding, *more, world=2, facts=None, **signals):
    """``signals``: name → list over ranks of lists over steps."""
    history = History()
    for name, ranks in signals.items():
        for rank, values in enumerate(ranks):
            for step, value in enumerate(values):
                if value is not None:
                    history.add(name, step, value, rank)
    return Case(findings=[finding, *more], history=history, facts=facts or {}, events=[], world_size=world)


def desync(*, step=60, differing=28, compared=28, agreed=50, minority=None, what="parameters"):
    evidence = {
        "what": what,
        "agreed_until": agreed,
        "tensors_differing": differing,
        "tensors_compared": compared,
        "ranks_compared": 4 if minority else 2,
        "minority": minority,
    }
    rank = minority[0] if minority else None
    return Finding(
        kind="desync", severity="critical", first_step=step, step=step, value=1.0, threshold=0.0,
        name="head.weight", rank=rank, evidence=evidence,
    )  # fmt: skip


def unsynced(step=55):
    return Finding(
        kind="unsynced_backward", severity="critical", first_step=step, step=step, value=0.0, threshold=1.0,
        evidence={"ranks": [0, 1], "synced_steps_before": step},
    )  # fmt: skip


def hang(**evidence):
    return Finding(
        kind="hang", severity="critical", first_step=60, step=60, value=6.0, threshold=5.0, evidence=evidence,
    )  # fmt: skip


def crash(name="", rank=None, **evidence):
    return Finding(
        kind="crash", severity="critical", first_step=60, step=60, value=1.0, threshold=0.0,
        name=name, rank=rank, evidence=evidence,
    )  # fmt: skip


SHARED = [[1.0] * 100] * 2
PARTED = [[1.0] * 55 + [0.0] * 45] * 2
ONE_PASS = [[1.0] * 100] * 2
FOUR_PASSES = [[4.0] * 100] * 2


@pytest.mark.parametrize("sampler", ["RandomSampler", "DistributedSampler", None])
def test_equal_batches_on_ranks_are_explained_by_what_draws_them(sampler):
    finding = Finding(
        kind="duplicate_data", severity="error", first_step=0, step=30, value=1.0, threshold=0.75,
        evidence={"ranks": [0, 1], "equal_checks": 6, "checks": 6},
    )  # fmt: skip
    cause, confidence, opinion = best(case(finding, facts={"loader": {"sampler": sampler}} if sampler else {}))

    assert cause == "duplicated_augmentation_seed"
    assert confidence > (0.9 if sampler == "RandomSampler" else 0.6)
    assert "DistributedSampler" in opinion.remedy


def test_a_forward_past_the_wrapper():
    cause, confidence, opinion = best(case(unsynced(), desync(), collectives=PARTED, backward_passes=ONE_PASS))

    assert cause == "unsynced_forward"
    assert confidence > 0.8
    assert opinion.first_step == 55


def test_a_desync_without_any_sharing_from_the_first_step_is_the_same():
    never = [[0.0] * 100] * 2
    found = best(case(desync(step=0, agreed=None), collectives=never, backward_passes=ONE_PASS))

    assert found[0] == "unsynced_forward"


def test_accumulation_without_a_last_synchronised_backward():
    found = best(case(unsynced(), desync(), collectives=PARTED, backward_passes=FOUR_PASSES))

    assert found[0] == "no_sync_left_on"


@pytest.mark.parametrize("passes", [1.0, 4.0])
@pytest.mark.parametrize(("under", "cause"), [(1.0, "no_sync_left_on"), (0.0, "unsynced_forward")])
def test_the_wrappers_own_flag_tells_no_sync_from_a_forward_past_it(passes, under, cause):
    signals = {
        "backward_passes": [[passes] * 100] * 2,
        "no_sync_passes": [[passes - 1] * 55 + [under * passes] * 45] * 2,
    }
    found = best(case(unsynced(), desync(), collectives=PARTED, **signals))

    assert found[0] == cause
    assert found[1] > 0.8


def test_a_last_pass_that_is_not_shared_is_no_rank_s_own_update():
    shared = {"collectives": [[1.0] * 100] * 2, "backward_passes": [[2.0] * 100] * 2}

    found = best(case(desync(), **shared, no_sync_last=[[None] * 50 + [1.0] * 50] * 2))

    assert found[0] == "no_sync_left_on"
    assert found[1] > 0.8
    assert best(case(desync(), **shared))[0] == "rank_local_update"


def test_clipping_on_one_rank_names_rank_and_step():
    norms = [[0.5] * 53 + [0.25] + [0.4] * 46, [0.5] * 100]
    unclipped = [[None] * 53 + [0.5], []]
    cause, _, opinion = best(case(desync(), collectives=SHARED, gradient_norm=norms, gradient_norm_unclipped=unclipped))

    assert (cause, opinion.rank, opinion.first_step) == ("rank_local_update", 0, 53)


def test_a_rank_that_clips_what_all_clip_harder_is_the_one_that_did():
    """As under a trainer that asks for the norm of each step by clipping to infinity."""
    shared = [0.9] * 100
    norms = [[*shared[:53], 0.01, *shared[54:]], shared]
    cause, _, opinion = best(
        case(desync(), collectives=SHARED, gradient_norm=norms, gradient_norm_unclipped=[shared, shared])
    )

    assert (cause, opinion.rank, opinion.first_step) == ("rank_local_update", 0, 53)
    assert "clipped" in opinion.title


def test_a_learning_rate_of_one_rank():
    rates = [[1e-3] * 100, [1e-3] * 57 + [2e-3] * 43]
    norms = [[0.5] * 100] * 2
    cause, _, opinion = best(case(desync(), collectives=SHARED, learning_rate=rates, gradient_norm=norms))

    assert (cause, opinion.rank, opinion.first_step) == ("rank_local_update", 1, 57)
    assert "learning rate" in opinion.title


def test_where_the_rates_of_both_ranks_changed_neither_is_accused():
    rates = [[1e-3] * 57 + [5e-4] * 43, [1e-3] * 57 + [2e-3] * 43]
    _, _, opinion = best(case(desync(), collectives=SHARED, learning_rate=rates, gradient_norm=[[0.5] * 100] * 2))

    assert (opinion.rank, opinion.first_step) == (None, 57)


def test_a_few_tensors_of_one_rank_are_a_corruption():
    norms = [[0.5] * 100] * 4
    cause, _, opinion = best(
        case(desync(differing=1, minority=[2]), world=4, collectives=[[1.0] * 100] * 4, gradient_norm=norms)
    )

    assert cause == "corrupted_gradient"
    assert "head.weight" in opinion.title
    assert "rank 2" in opinion.title


def test_a_part_of_the_tensors_was_lost_and_all_of_them_were_stepped_otherwise():
    """Each reduction that loses data adds a tensor; the norms of what is applied differ in both cases."""
    norms = [[0.5] * 100, [0.5] * 58 + [0.45] * 42]
    causes = [
        best(case(desync(differing=differing), collectives=SHARED, gradient_norm=norms))[0] for differing in (14, 28)
    ]

    assert causes == ["corrupted_gradient", "rank_local_update"]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "[enforce fail at alltoallv.cc:138] inLengthPerRank[myRank] == outLengthPerRank[myRank]. ",
            "collective_mismatch",
        ),
        ("Detected mismatch between collectives on ranks. Rank 1 is running ALLREDUCE", "collective_mismatch"),
        ("mat1 and mat2 shapes cannot be multiplied (32x20 and 24x64)", "exception"),
    ],
)
def test_an_exception_that_tells_of_sizes_is_the_messenger(message, expected):
    cause, _, opinion = best(case(crash("train.py:33", 1, type="RuntimeError", message=message, victims=[0])))

    assert cause == expected
    assert opinion.where in ("train.py:33", "")


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ({0: "train.py:33", 1: "train.py:33"}, "collective_mismatch"),
        ({0: "train.py:33"}, "collective_mismatch"),  # what the other rank did when it was reset was not seen
        ({}, "exception"),
    ],
)
def test_an_abort_in_a_collective_that_all_have_come_to(places, expected):
    stood = sorted(places)
    found = crash("train.py:33", 0, gone=True, signal=6, places=places, in_collective=stood, victims=[1])

    cause, _, opinion = best(case(found))
    assert cause == expected
    assert ("Join" in opinion.remedy) == (len(places) == 1)  # the other rank may have run out of batches


def test_weights_written_to_on_one_rank_name_it_where_ranks_cannot():
    written = [[], [None] * 53 + [1.0] * 47]
    finding = desync(differing=6)
    finding.evidence["agreed_at"] = finding.first_step - 8
    norms = [[0.5] * 100] * 2
    cause, _, opinion = best(case(finding, collectives=SHARED, gradient_norm=norms, weights_overwritten=written))

    assert (cause, opinion.rank, opinion.first_step) == ("rank_local_update", 1, 53)


def test_a_few_tensors_are_dated_between_the_steps_that_were_looked_at():
    finding = desync(differing=1)
    finding.evidence["agreed_at"] = finding.first_step - 4
    _, _, opinion = best(case(finding, collectives=SHARED, gradient_norm=[[0.5] * 100] * 2))

    assert f"a step from {finding.first_step - 3} to {finding.first_step}" in opinion.title


@pytest.mark.parametrize(("other", "cause"), [(True, "rank_local_update"), (False, "unknown")])
def test_a_weight_that_is_not_finite_on_one_rank_alone_was_written_there(other, cause):
    def origin(operation, *, finite, **details):
        return Event(1.0, 60, "origin", {"operation": operation, "parameters_finite": finite, **details})

    finding = Finding(
        kind="nonfinite", severity="critical", first_step=60, step=60, value=float("nan"), threshold=0.0,
        evidence={"gradient_before": 0.5, "loss_before": 0.2, "signals": ["loss"]},
    )  # fmt: skip
    events = [
        (0, origin("", finite=other, complete=False)),
        (1, origin("parameter", finite=False, complete=True, parameter="2.weight")),
    ]
    of = case(finding)
    of.events.extend(events)
    found, _, opinion = best(of)

    assert found == cause
    assert not other or (opinion.rank, opinion.where) == (1, "2.weight")


def test_optimizers_that_are_set_differently_need_not_have_begun_apart():
    norms = [[0.5] * 100] * 2
    settings = desync(step=1, agreed=None, differing=1, compared=11, what="hyper-parameters")
    cause, _, opinion = best(case(desync(step=0, agreed=None), settings, collectives=SHARED, gradient_norm=norms))

    assert cause == "rank_local_update"
    assert "settings" in opinion.title


def test_replicas_that_never_agreed_were_loaded_apart():
    norms = [[0.5] * 100] * 2
    found = best(case(desync(step=0, agreed=None), collectives=SHARED, gradient_norm=norms))

    assert found[0] == "rank_local_load"


def test_a_hang_of_different_collectives():
    def entry(operation, size):
        return [{"group": "0", "sequence": 9, "operation": operation, "sizes": [[size]], "dtypes": ["Float"]}]

    evidence = {
        "phases": {0: "idle", 1: "backward"},
        "issued": {0: 9, 1: 9},
        "collectives": {0: entry("gloo:all_reduce", 1), 1: entry("gloo:all_reduce", 4096)},
    }
    cause, _, opinion = best(case(hang(**evidence)))

    assert cause == "collective_mismatch"
    assert "Collective 9 is gloo:all_reduce of [[1]] on rank 0" in opinion.explanation


C10D = "/lib/python3/site-packages/torch/distributed/distributed_c10d.py:2799"
BACKWARD = ["/job/train.py:80 main", "/lib/python3/site-packages/torch/autograd/graph.py:979 _engine_run_backward"]


def standing(**ranks):
    """Ranks that wait, each with its frames."""
    stacks = dict(enumerate(ranks.values()))
    groups = [
        {"ranks": [rank], "waits": True, "frames": frames, "where": f"train.py:{frames[0].split(':')[1].split()[0]}"}
        for rank, frames in stacks.items()
    ]
    phases = dict.fromkeys(stacks, "idle")
    return {"phases": phases, "issued": dict.fromkeys(stacks, 9), "groups": groups, "stacks": stacks}


@pytest.mark.parametrize(
    ("first", "second", "cause", "rank"),
    [
        (["/job/train.py:23 give", f"{C10D} recv"], BACKWARD, "collective_mismatch", 0),
        (["/job/train.py:23 give", f"{C10D} send"], BACKWARD, "collective_mismatch", 0),
        (
            ["/job/train.py:23 give", f"{C10D} recv"],
            ["/job/train.py:9 give", f"{C10D} recv"],
            "collective_mismatch",
            None,
        ),
        (["/job/train.py:23 give", f"{C10D} recv"], ["/job/train.py:9 give", f"{C10D} send"], "unknown", None),
    ],
)
def test_a_message_that_nobody_answers(first, second, cause, rank):
    found, _, opinion = best(case(hang(**standing(first=first, second=second))))

    assert (found, opinion.rank) == (cause, rank)


def test_of_two_that_wait_apart_the_line_is_the_one_on_which_the_code_calls_a_collective():
    def entry(operation, size):
        return [{"group": "0", "sequence": 9, "operation": operation, "sizes": [[size]], "dtypes": ["Float"]}]

    evidence = standing(first=BACKWARD, second=["/job/train.py:25 evaluate", f"{C10D} broadcast"])
    evidence["collectives"] = {0: entry("gloo:all_reduce", 1348), 1: entry("gloo:broadcast", 3)}
    _, _, opinion = best(case(hang(**evidence)))

    assert (opinion.where, opinion.rank) == ("train.py:25", None)


def test_a_hang_behind_a_rank_that_has_ended():
    evidence = {"phases": {0: "backward"}, "issued": {0: 9}, "ended": [1], "collectives": {}}
    cause, _, opinion = best(case(hang(**evidence)))

    assert cause == "collective_mismatch"
    assert "rank 1 did not join" in opinion.title


def test_a_loader_that_delivers_nothing_beats_the_missing_collective_behind_it():
    evidence = {
        "phases": {0: "backward", 1: "data"},
        "issued": {0: 9, 1: 8},
        "stacks": {1: ["/job/train.py:9 main", "/x/torch/utils/data/dataloader.py:1251 _try_get_data"]},
    }
    cause, _, opinion = best(case(hang(**evidence), facts={"loader": {"workers": 4}}))

    assert (cause, opinion.rank) == ("dataloader_stall", 1)
    assert "4 workers" in opinion.remedy


def test_an_exception_speaks_for_itself():
    finding = crash("train.py:12", 1, type="IndexError", message="index 7\nmore", exit_code=1, victims=[0])
    cause, confidence, opinion = best(case(finding))

    assert (cause, opinion.title) == ("exception", "Rank 1: IndexError at step 60 in train.py:12")
    assert confidence > 0.9
    assert "Rank 0 failed after it" in opinion.explanation


def test_an_exit_code_is_the_codes_own_choice():
    cause, _, opinion = best(case(crash("train.py:44", 0, type="", exit_code=3), world=1))

    assert cause == "exception"
    assert "code 3" in opinion.title


@pytest.mark.parametrize("evidence", [{"signal": 9, "oom_kills": 1}, {"gone": True, "oom_kills": 2}])
def test_a_kill_that_the_kernel_counted_is_out_of_memory(evidence):
    memory = [[1e9] * 50 + [4e9] * 10]
    cause, confidence, opinion = best(case(crash(exit_code=137, **evidence), world=1, rss_bytes=memory))

    assert cause == "out_of_memory_kill"
    assert confidence > 0.9
    assert "3.73 GiB at the end" in opinion.explanation


@pytest.mark.parametrize("kills", [0, None])
def test_sigkill_alone_is_not_called_out_of_memory(kills):
    cause, _, opinion = best(case(crash(signal=9, oom_kills=kills), world=1, rss_bytes=[[1e9] * 60]))

    assert cause == "unknown"
    assert opinion.title == "Ended by SIGKILL at step 60 or soon after"
    assert "last step that was written is 60" in opinion.explanation


def test_a_code_by_os_exit_is_the_codes_own_choice_unless_it_is_torchruns():
    evidence = {"type": "", "exit_code": 3, "gone": True}

    assert best(case(crash(**evidence), world=1))[0] == "exception"
    assert best(case(crash(**evidence), world=2))[0] == "unknown"


def test_a_worker_s_exception_is_told_with_its_own_last_words():
    message = (
        "Caught OSError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\nOSError: no such"
    )
    _, _, opinion = best(case(crash("data.py:7", type="OSError", message=message), world=1))

    assert "Caught OSError in DataLoader worker process 0. OSError: no such" in opinion.explanation


def test_a_kill_that_nobody_counted_and_no_memory_grew_before_stays_unknown():
    cause, _, _ = best(case(crash(signal=15, gone=True, oom_kills=0), world=1, rss_bytes=[[1e9] * 60]))

    assert cause == "unknown"


def test_numbers_that_differ_by_rounding_do_not_differ():
    found = first_difference(case(desync(), gradient_norm=[[1.0, 2.0], [1.0 + 1e-9, 2.1]]), "gradient_norm")

    assert found is not None
    assert found.step == 1
    assert first_difference(case(desync(), gradient_norm=[[float("nan")], [float("nan")]]), "gradient_norm") is None


def test_sharing_counts_the_worst_rank():
    found = sharing(case(desync(), collectives=[[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]]), 1)

    assert (found.steps, found.unshared) == (2, 1)


def slowed(step_seconds, **added):
    """Two ranks whose steps take ``step_seconds`` instead of 50 ms from step 200 on; ``added`` by signal."""
    usual = {"collective_seconds": 0.01, "arrival_lateness": 0.001, "backward_seconds": 0.03}
    signals = {"step_seconds": [[0.05] * 200 + [step_seconds] * 80] * 2}
    for name, value in usual.items():
        signals[name] = [[value] * 200 + [value + added.get(name, 0.0)] * 80] * 2
    slowdown = Finding(kind="slowdown", severity="warning", first_step=200, step=279, value=3.0, threshold=2.5, rank=0)
    return case(slowdown, **signals)


def test_time_behind_the_arrival_of_the_last_rank_is_the_network_s():
    word, confidence, opinion = best(slowed(0.15, collective_seconds=0.1, backward_seconds=0.1))

    assert word == "slow_communication"
    assert confidence > 0.8
    assert opinion.rank is None


def test_a_network_that_became_slow_is_nobody_s_lateness():
    of = slowed(0.15, collective_seconds=0.1, backward_seconds=0.1, arrival_lateness=0.04)
    evidence = {
        "phase": "communication", "seconds_before": 0.01, "seconds_now": 0.11, "step_seconds": 0.15, "ranks": 2,
        "leaves_last": 0, "leaves_later_seconds": 0.04,
    }  # fmt: skip
    seen = Finding(
        kind="straggler", severity="warning", first_step=200, step=255, value=9.0, threshold=2.0, evidence=evidence
    )
    of.findings.insert(0, seen)
    word, confidence, opinion = best(of)

    assert (word, opinion.rank) == ("slow_communication", None)
    assert confidence > 0.9


@pytest.mark.parametrize(
    ("added", "word"),
    [
        ({"backward_seconds": 0.1}, "unknown"),  # more to compute: all ranks come later, and together
        ({"backward_seconds": 0.1, "arrival_lateness": 0.1}, "unknown"),  # one rank has more to compute
        ({}, "slow_dependency"),
    ],
)
def test_what_is_spent_before_the_last_rank_comes_is_not(added, word):
    assert best(slowed(0.15, **added))[0] == word


@pytest.mark.parametrize(("step", "rank", "cause"), [(60, 1, "exception"), (60, 0, "unknown"), (300, 1, "unknown")])
def test_whoever_waits_for_a_thread_that_died_waits_for_its_exception(step, rank, cause):
    """Of a rank that stands still, and not long before: what a thread had made ready is used up soon."""
    frames = ["/job/train.py:21 batches", "/lib/python3/queue.py:171 get"]
    evidence = standing(first=BACKWARD, second=frames)
    evidence["groups"][1] |= {"waits": False, "doing": "is in batches, train.py:21"}
    said = {"type": "RuntimeError", "message": "decoder gave up", "frames": ["/job/train.py:17 run"], "thread": "T-1"}
    of = case(msgspec.structs.replace(hang(**evidence), step=step))
    of.events.append((rank, Event(10.0, 56, "exception", said)))
    found, _, opinion = best(of)

    assert found == cause
    assert cause == "unknown" or (opinion.rank, opinion.where) == (1, "train.py:17")


def test_a_rendezvous_that_timed_out_says_that_a_rank_never_came():
    told = crash(type="DistStoreError", message="wait timeout after 20000ms, keys: /default_pg/0//cpu//0/1")
    cause, _, opinion = best(case(told, world=2))

    assert cause == "exception"
    assert "waited for 2 ranks" in opinion.explanation
    assert "did not come" in opinion.remedy
    assert "never came" not in best(case(crash(type="DistBackendError", message="connection reset"), world=2))[2].title


def test_a_full_disk_is_no_bad_batch_or_file():
    _, _, opinion = best(case(crash(type="OSError", message="[Errno 28] No space left on device"), world=1))

    assert opinion.remedy.startswith("There was no room left")


def test_a_headline_is_cut_between_words():
    text = "Ranks apply different updates: another learning rate or loss scale from step 500"

    assert headline(text) == "Ranks apply different updates: another learning rate or loss scale from step …"
    assert headline(text[:79]) == text[:79]
    assert len(headline("a" * 200)) == 79
