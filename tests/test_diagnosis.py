"""Findings with one root are one incident, named after the root; causes are ranked by evidence."""

import math
from pathlib import Path
from typing import ClassVar

import pytest
from made_up import HighLoss, finding, train, writer
from torchvitals.agent import causes as cause_room
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.causes import CAUSES
from torchvitals.agent.causes.unknown import Unknown
from torchvitals.agent.crew import Crew
from torchvitals.agent.diagnosis import Diagnosis
from torchvitals.agent.engine import Engine, Noted
from torchvitals.agent.incident import Incident
from torchvitals.agent.kinds import CAUSAL_RANK, LASTING, LEADS_TO
from torchvitals.agent.links import PROFILES, SCALARS
from torchvitals.agent.run_state import RunState
from torchvitals.agent.watch import RecordWatch
from torchvitals.detectors import DETECTORS, RECORD_DETECTORS
from torchvitals.detectors.detector import Finding
from torchvitals.signals.catalog import BY_NAME
from torchvitals.signals.reader import RunReader
from torchvitals.signals.records import Event, Hello


class TooFast:
    """Explains explosions when a fact says so."""

    word: ClassVar[str] = "too_fast"
    explains: ClassVar[tuple[str, ...]] = ("explosion",)
    prior: ClassVar[float] = 1.0

    def weigh(self, case: Case) -> Opinion | None:
        assert case.opening.kind == "explosion"
        clues = [Clue(1.5, "the rate is 40 times the usual"), Clue(-0.5, "the job clips")]
        return Opinion(clues=clues, title="Too fast", explanation="It is.", remedy="Slow down.", where="here")


class Raises:
    """A cause with a mistake in it."""

    word: ClassVar[str] = "raises"
    explains: ClassVar[tuple[str, ...]] = ("explosion",)
    prior: ClassVar[float] = 9.0

    def weigh(self, case: Case) -> Opinion | None:
        raise KeyError(case.opening.kind)


def diagnosed(*findings: Finding, world: int = 1, causes=CAUSES) -> Diagnosis:
    """The diagnosis after ``findings`` came in this order, one at a time."""
    engine = Engine("run", (), ())
    crew = Crew(Hello(run="run", world_size=world, started=1.0), (), RecordWatch(()))
    engine.crews.append(crew)
    diagnosis = Diagnosis(engine, causes)
    for one in findings:
        engine.noted.append(Noted(crew, one))
        diagnosis.update()
    return diagnosis


def only(diagnosis: Diagnosis) -> Incident:
    (incident,) = diagnosis.incidents
    return incident


def test_an_explosion_and_all_that_follows_is_one_incident() -> None:
    chain = [
        finding("nonfinite", 41, severity="critical"),
        finding("explosion", 38, first=30),
        finding("loss_spike", 39, first=31),
        finding("dead_relu", 60, first=40, name="layer.1"),
        finding("crash", 64, evidence={"type": "ValueError"}),
    ]
    incident = only(diagnosed(*chain))

    assert (incident.kind, incident.first_step, incident.detected_step) == ("explosion", 30, 38)
    assert incident.severity == "critical"
    assert len(incident.findings) == 5


@pytest.mark.parametrize(("loss_before", "incidents"), [(1e37, 1), (0.4, 2), (None, 2)])
def test_a_loss_that_never_came_down_and_ends_in_infinity_is_one_incident(loss_before, incidents) -> None:
    blown = finding("explosion", 28, first=8, value=900.0, threshold=20.0)
    ended = finding("nonfinite", 3600, evidence={"loss_before": loss_before})

    assert len(diagnosed(blown, ended).incidents) == incidents


def test_a_nan_out_of_the_blue_names_itself() -> None:
    incident = only(diagnosed(finding("nonfinite", 50), finding("explosion", 50), finding("loss_spike", 51)))

    assert incident.kind == "nonfinite"


def test_forty_layers_that_vanish_are_one_incident() -> None:
    layers = [finding("vanishing", 100 + 40 * i, subject=i, name=f"layer.{i}") for i in range(40)]

    assert len(only(diagnosed(*layers)).findings) == 40


def test_a_desync_seen_on_two_ranks_is_one_incident_of_no_rank() -> None:
    incident = only(diagnosed(finding("desync", 9, rank=0), finding("desync", 9, rank=1), world=2))

    assert incident.rank is None


@pytest.mark.parametrize(("world", "rank"), [(4, 2), (1, None)])
def test_the_rank_is_told_when_there_are_several(world: int, rank: int | None) -> None:
    found = [finding("nonfinite", 9, rank=2), finding("nonfinite", 10, rank=0)]

    assert only(diagnosed(*found, world=world)).rank == rank


def test_answers_that_change_with_what_a_service_keeps_are_one_incident() -> None:
    leak, answers = finding("memory_leak", 399, first=0), finding("prediction_drift", 700, first=640)

    assert only(diagnosed(leak, answers)).kind == only(diagnosed(answers, leak)).kind == "memory_leak"


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_requests_that_change_while_memory_leaks_are_two(order: tuple[int, ...]) -> None:
    leak, requests = finding("memory_leak", 399, first=0), finding("drift", 700, first=640)
    found = (leak, requests, finding("prediction_drift", 700, first=640))

    kinds = {incident.kind for incident in diagnosed(*(found[place] for place in order)).incidents}

    assert kinds == {"memory_leak", "drift"}


def test_independent_faults_thousands_of_steps_apart_are_two() -> None:
    kinds = [i.kind for i in diagnosed(finding("explosion", 500), finding("nonfinite", 6000)).incidents]

    assert sorted(kinds) == ["explosion", "nonfinite"]
    assert len(diagnosed(finding("loss_spike", 500), finding("loss_spike", 6000)).incidents) == 2


def test_faults_of_different_kinds_at_the_same_time_are_two() -> None:
    assert len(diagnosed(finding("memory_leak", 200), finding("explosion", 205)).incidents) == 2


@pytest.mark.parametrize(
    ("fault", "evidence", "incidents"),
    [
        ("nonfinite", {"type": "ValueError"}, 1),
        ("nonfinite", {"signal": 9, "gone": True}, 2),
        ("memory_leak", {"signal": 9}, 1),
        ("memory_leak", {"oom_kills": 1}, 1),
        ("memory_leak", {"type": "torch.OutOfMemoryError"}, 1),
        ("memory_leak", {"type": "KeyError", "message": "'x'"}, 2),
    ],
)
def test_a_crash_belongs_to_what_can_have_caused_it(fault: str, evidence: dict, incidents: int) -> None:
    found = diagnosed(finding(fault, 100), finding("crash", 4000, evidence=evidence))

    assert len(found.incidents) == incidents


def test_the_id_stays_while_the_incident_grows_and_changes_its_name() -> None:
    first = only(diagnosed(finding("nonfinite", 41)))
    grown = only(diagnosed(finding("nonfinite", 41), finding("explosion", 42, first=30)))

    assert (first.kind, grown.kind) == ("nonfinite", "explosion")
    assert first.id == grown.id


def test_a_bridge_between_two_incidents_makes_them_one() -> None:
    """A plateau and a dead layer look unrelated to saturation until what links them is found."""
    diagnosis = diagnosed(finding("stuck_parameters", 300), finding("saturation", 290), finding("explosion", 280))

    assert only(diagnosis).kind == "explosion"
    apart = diagnosed(finding("loss_spike", 300), finding("dead_relu", 302), finding("explosion", 295))
    assert only(apart).kind == "explosion"
    assert list(apart.absorbed.values()) == [only(apart).id]


def test_updates_return_only_what_changed() -> None:
    diagnosis = diagnosed(finding("explosion", 30))

    assert diagnosis.update() == []


def test_causes_are_ranked_by_softmax_of_their_clues() -> None:
    incident = only(diagnosed(finding("explosion", 30), causes=(Unknown, TooFast)))
    share = math.exp(2) / (1 + math.exp(2))

    assert (incident.cause, incident.where, incident.title) == ("too_fast", "here", "Too fast")
    assert incident.confidence == pytest.approx(share, abs=1e-4)
    assert [cause.cause for cause in incident.causes] == ["too_fast", "unknown"]
    assert incident.causes[0].evidence == ["the rate is 40 times the usual"]
    assert incident.causes[0].against == ["the job clips"]


def test_without_evidence_the_cause_is_unknown() -> None:
    incident = only(diagnosed(finding("plateau", 30), causes=(TooFast,)))

    assert (incident.cause, incident.confidence) == ("unknown", 1.0)


def test_a_tie_with_unknown_claims_nothing() -> None:
    class Even(TooFast):
        word = "even"
        prior = -1.0

    incident = only(diagnosed(finding("explosion", 30), causes=(Even, Unknown)))

    assert [(cause.cause, cause.confidence) for cause in incident.causes] == [("unknown", 0.5), ("even", 0.5)]


def test_a_cause_that_raises_is_left_out_and_said() -> None:
    diagnosis = diagnosed(finding("explosion", 30), causes=(Unknown, Raises, TooFast))

    assert only(diagnosis).cause == "too_fast"
    assert [problem.what for problem in diagnosis.problems] == ["cause raises"]


def test_an_incident_is_the_same_whatever_the_order_of_arrival() -> None:
    found = [finding("explosion", 30), finding("nonfinite", 34), finding("dead_relu", 60, first=33, name="a")]
    forward, backward = only(diagnosed(*found)), only(diagnosed(*found[::-1]))

    assert (forward.kind, forward.first_step, forward.where) == (backward.kind, backward.first_step, backward.where)
    assert forward.findings == backward.findings


def test_a_run_that_is_well_has_no_incident_and_says_what_it_checked(tmp_path: Path) -> None:
    train(writer(tmp_path), [1.0] * 20)
    state = RunState("made-up", Engine("made-up", (HighLoss,), ()))
    for process in RunReader(tmp_path / "made-up").processes.values():
        state.feed(process.read())
    state.finish()

    assert (state.incidents, state.checked(), state.not_checked()) == ([], ["explosion"], [])


def test_the_list_of_causes_is_the_folder() -> None:
    """One file, one word, one class named after it; nothing is found by scanning."""
    files = {path.stem for path in Path(cause_room.__file__).parent.glob("*.py")} - {"__init__"}
    listed = {cause.__module__.rpartition(".")[2] for cause in CAUSES}
    names = [cause.__name__ for cause in CAUSES]

    assert listed <= files
    assert {word for word in files if _is_cause(word)} == listed
    assert names == sorted(names)
    assert all(cause.__name__ in (_camel(cause.word), "UncaughtException") for cause in CAUSES)


def _camel(word: str) -> str:
    return "".join(part.capitalize() for part in word.split("_"))


def _is_cause(word: str) -> bool:
    source = (Path(cause_room.__file__).parent / f"{word}.py").read_text(encoding="utf-8")
    return f'= "{word}"' in source


def test_every_kind_has_a_place_in_the_table() -> None:
    kinds = {detector.kind for detector in (*DETECTORS, *RECORD_DETECTORS)}

    assert kinds <= CAUSAL_RANK.keys()
    assert LEADS_TO.keys() <= CAUSAL_RANK.keys()
    assert {kind for kinds in LEADS_TO.values() for kind in kinds} <= CAUSAL_RANK.keys()
    assert CAUSAL_RANK.keys() >= LASTING


def test_every_cause_explains_kinds_that_exist() -> None:
    assert {kind for cause in CAUSES for kind in cause.explains} <= CAUSAL_RANK.keys()


def test_plots_draw_signals_that_exist() -> None:
    drawn = {name for names in (*SCALARS.values(), *PROFILES.values()) for name in names}

    assert drawn <= BY_NAME.keys()


def test_a_buffer_that_fills_up_to_its_limit_is_no_incident():
    held = {"holder": "deque `replay`", "growth_per_step": 4.0, "bytes_per_step": 4e4, "graph": False, "native": False}
    for limit, room, incidents in ((50_000, 6e8, 0), (50_000, 4e8, 1), (None, 6e8, 1)):
        engine = Engine("run", (), ())
        crew = Crew(Hello(run="run", started=1.0), (), RecordWatch(()))
        engine.crews.append(crew)
        crew.history.add("memory_headroom_bytes", 0, room)
        crew.events.append((0, Event(1.0, 100, "holder", held | ({"limit": limit} if limit else {}))))
        engine.noted.append(Noted(crew, finding("memory_leak", 200)))
        diagnosis = Diagnosis(engine)
        diagnosis.update()
        assert len(diagnosis.incidents) == incidents
        assert ["about 500 MB" in problem.why for problem in diagnosis.problems] == [True] * (1 - incidents)


@pytest.mark.parametrize(("ends", "creeping", "incidents"), [(250, 0.0, 0), (600, 0.0, 1), (400, 8e4, 0)])
def test_a_cache_that_was_filled_in_the_first_epoch_is_no_incident_in_the_end(
    ends: int, creeping: float, incidents: int
):
    engine = Engine("run", (), ())
    crew = Crew(Hello(run="run", started=1.0), (), RecordWatch(()))
    engine.crews.append(crew)
    engine.noted.append(Noted(crew, finding("memory_leak", 200)))
    diagnosis = Diagnosis(engine)
    for step in range(800):
        crew.history.add("rss_bytes", step, 3e8 + 5e5 * min(step, ends) + creeping * max(0, step - ends))
        if step == 200:
            assert len(diagnosis.update()) == 1
    diagnosis.conclude()
    assert len(diagnosis.incidents) == incidents


@pytest.mark.parametrize(
    ("relation", "kind", "step", "incidents"),
    [
        ("left_in_evaluation_mode", "explosion", 3000, 1),
        ("left_in_evaluation_mode", "explosion", 60, 2),  # before it
        ("left_in_evaluation_mode", "memory_leak", 3000, 2),
        ("frozen_late", "explosion", 3000, 2),
    ],
)
def test_numbers_break_of_training_in_evaluation_mode(relation: str, kind: str, step: int, incidents: int) -> None:
    mode = finding("miswired", 120, 100, evidence={"relation": relation})
    found = diagnosed(mode, finding(kind, step)).incidents

    assert len(found) == incidents
    assert incidents > 1 or found[0].kind == "miswired"


@pytest.mark.parametrize(("waits", "first", "incidents"), [(1, 130, 1), (1, 20, 2), (0, 130, 2)])
def test_a_slow_loader_of_one_rank_is_one_incident(waits: int, first: int, incidents: int) -> None:
    late = finding("straggler", 260, 180, rank=1)
    found = diagnosed(finding("input_bound", 250, first, rank=waits), late, world=2).incidents

    assert len(found) == incidents
    assert incidents > 1 or found[0].kind == "straggler"
