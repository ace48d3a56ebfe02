"""Causes in the loop's own code, weighed on made-up histories: what speaks for each, and what must keep it quiet."""

import numpy as np
import pytest
from torchvitals.agent.case import Case
from torchvitals.agent.causes.constant_loss import ConstantLoss
from torchvitals.agent.causes.dying_relu import DyingRelu
from torchvitals.agent.causes.excessive_weight_decay import ExcessiveWeightDecay
from torchvitals.agent.causes.learning_rate_too_high import LearningRateTooHigh
from torchvitals.agent.causes.lost_in_rounding import LostInRounding
from torchvitals.agent.causes.missing_normalization import MissingNormalization
from torchvitals.agent.causes.missing_optimizer_state import MissingOptimizerState
from torchvitals.agent.causes.saturating_activation import SaturatingActivation
from torchvitals.agent.causes.slow_dataloader import SlowDataloader
from torchvitals.agent.causes.slow_dependency import SlowDependency
from torchvitals.agent.causes.uninformative_labels import UninformativeLabels
from torchvitals.agent.causes.weights_overwritten import WeightsOverwritten
from torchvitals.agent.history import History, ProfileAt
from torchvitals.agent.step_evidence import in_force, largest_move
from torchvitals.detectors.detector import Finding
from torchvitals.signals.records import Event


def case(kind, step, history, *, optimizer=0, **evidence):
    finding = Finding(
        kind=kind, severity="error", first_step=step, step=step + 2, value=5.0, threshold=1.0, rank=0,
        optimizer=optimizer, evidence=evidence,
    )  # fmt: skip
    return Case(findings=[finding], history=history, facts={}, events=[])


def history(optimizer=0, **signals):
    kept = History()
    for name, values in signals.items():
        for step, value in enumerate(values):
            kept.add(name, step, value, 0, optimizer)
    return kept


def weight(opinion):
    return sum(clue.weight for clue in opinion.clues)


@pytest.mark.parametrize(("phase", "speaks"), [("", True), ("forward_seconds", False), ("data_seconds", False)])
def test_time_lost_outside_the_phases_of_training(phase, speaks):
    before, after = np.full(100, 0.01), np.full(100, 0.09)
    series = {name: np.full(200, 0.002) for name in ("forward_seconds", "backward_seconds", "data_seconds")}
    if phase:
        series[phase] = np.concatenate([before, after]) - 0.005
    kept = history(step_seconds=[*before, *after], **series)

    opinion = SlowDependency().weigh(case("slowdown", 100, kept))

    assert (opinion is not None) is speaks
    assert not speaks or "80 ms" in opinion.title


LOOKS = {"line": "train.py:9", "code": "send(loss)", "function": "report", "share": 0.75, "looks": 16}


def slow_steps(phase, longer, looked):
    """Steps that take ``longer`` seconds from step 100 on, all of them in ``phase``; the job was looked at then."""
    late = np.repeat([0.0, longer], 100)
    series = {name: np.full(200, 0.002) for name in ("forward_seconds", "backward_seconds", "data_seconds")}
    if phase:
        series[phase] = series[phase] + late
    made = case("slowdown", 100, history(step_seconds=0.01 + late, **series))
    made.facts["loader"] = {"workers": 0}
    made.events.append((0, Event(1.0, looked, "dwells", LOOKS)))
    return made


@pytest.mark.parametrize(
    ("longer", "looked", "where"),
    [(0.03, 150, "train.py:9"), (0.03, 90, ""), (0.006, 150, "")],
    ids=["since", "before", "too short to be found by looks"],
)
@pytest.mark.parametrize(("cause", "phase"), [(SlowDependency(), ""), (SlowDataloader(), "data_seconds")])
def test_the_line_that_takes_the_time_is_named_where_looks_can_find_it(cause, phase, longer, looked, where):
    opinion = cause.weigh(slow_steps(phase, longer, looked))

    assert opinion.where == where
    assert not where or where in opinion.remedy
    assert weight(opinion) >= 3


@pytest.mark.parametrize("phase", ["", "forward_seconds"])
def test_a_loader_that_takes_what_it_took_is_not_to_blame(phase):
    assert SlowDataloader().weigh(slow_steps(phase, 0.03, 150)) is None


def test_the_other_optimizer_s_rate_is_to_blame():
    kept = history(learning_rate=[1e-3] * 300, loss=[1.0] * 300)
    for step in range(300):
        kept.add("loss", step, 1.0, 0, 1)
        kept.add("learning_rate", step, 1.0 if step >= 200 else 1e-3, 0, 1)

    opinion = LearningRateTooHigh().weigh(case("explosion", 201, kept))

    assert opinion.first_step == 200
    assert weight(opinion) > 3


def test_a_rate_below_zero_goes_uphill():
    falling = [0.1 * (1 - step / 400) for step in range(520)]

    opinion = LearningRateTooHigh().weigh(case("explosion", 507, history(learning_rate=falling)))

    assert (opinion.first_step, opinion.where) == (401, "optimizer")
    assert weight(opinion) > 4
    beyond = LearningRateTooHigh().weigh(case("explosion", 300, history(learning_rate=falling)))
    assert beyond is None or "negative" not in beyond.title


def test_a_rate_is_in_force_between_two_looks_at_it():
    kept = History()
    for step, rate in ((0, 0.1), (40, 0.2), (80, 0.3)):
        kept.add("learning_rate", step, rate)

    assert in_force(case("explosion", 79, kept), "learning_rate") == 0.2
    assert in_force(case("explosion", 80, kept), "learning_rate") == 0.3
    assert in_force(case("explosion", 5, History()), "learning_rate") is None


@pytest.mark.parametrize(("last", "loss", "speaks"), [(0.0, 2.3, True), (0.4, 2.3, False)])
def test_a_loss_that_does_not_depend_on_the_answers(last, loss, speaks):
    kept = history(loss=[loss] * 60)
    kept.add_profile("parameter_gradient_norm", ProfileAt(10, ["a", "b"], np.array([0.0, last])))

    opinion = ConstantLoss().weigh(case("vanishing", 0, kept, everywhere=True, loss=loss))

    assert (weight(opinion) > 2) is speaks


@pytest.mark.parametrize(("rate", "moved", "speaks"), [(1e-3, 1e-2, True), (1e-3, 1e-9, False), (3.0, 1e-2, False)])
def test_labels_are_blamed_only_where_all_else_is_well(rate, moved, speaks):
    kept = history(loss=[2.3] * 60, learning_rate=[rate] * 60)
    kept.add_profile("parameter_update_norm", ProfileAt(50, ["a"], np.array([moved])))
    kept.add_profile("parameter_weight_norm", ProfileAt(50, ["a"], np.array([1.0])))

    opinion = UninformativeLabels().weigh(case("plateau", 0, kept, classes=10, chance=2.3026))

    assert (weight(opinion) > 2) is speaks


@pytest.mark.parametrize(
    ("dtype", "moved", "word"),
    [
        ("bfloat16", 2e-5, "lost_in_rounding"),
        ("bfloat16", 5e-3, "uninformative_labels"),
        ("float32", 2e-5, "uninformative_labels"),
    ],
)
def test_steps_below_the_last_bit_of_a_weight_are_lost(dtype, moved, word):
    kept = history(loss=[2.3] * 60, learning_rate=[1e-3] * 60)
    kept.add_profile("parameter_update_norm", ProfileAt(50, ["a"], np.array([moved])))
    kept.add_profile("parameter_weight_norm", ProfileAt(50, ["a"], np.array([1.0])))
    given = case("plateau", 0, kept, classes=10, chance=2.3026)
    given.facts["models"] = [{"dtype": dtype}]
    opinions = {cause.word: cause().weigh(given) for cause in (LostInRounding, UninformativeLabels)}

    assert max((word for word in opinions if opinions[word]), key=lambda word: weight(opinions[word])) == word


@pytest.mark.parametrize(
    ("steps", "share", "speaks"), [([250], 1.0, True), (range(300), 1.0, False), ([250], 0.2, None)]
)
def test_writing_to_the_weights_is_blamed_when_it_is_rare_and_whole(steps, share, speaks):
    kept = history(loss=[1.0] * 300)
    for step in steps:
        kept.add("weights_overwritten", step, share)

    opinion = WeightsOverwritten().weigh(case("loss_spike", 250, kept))

    assert (None if opinion is None else weight(opinion) > 2) is speaks


def rates(case_given, *causes):
    """Log-odds of these causes by word, where they speak."""
    found = {}
    for cause in causes:
        opinion = cause().weigh(case_given)
        if opinion is not None:
            found[cause.word] = cause.prior + weight(opinion)
    return found


DEAD = {"units": 40, "silent_units": 30, "lowest_share": 0.1}


@pytest.mark.parametrize("reach", [4.0, 25.0])
def test_a_rate_that_compounds_is_named_before_the_units_that_die_of_it(reach):
    """The verdict must not turn on which of the two is seen first, nor on how far the rate had come by then."""
    growth = reach ** (1 / 100)
    kept = history(learning_rate=[0.02 * growth**step for step in range(120)])
    given = case("dead_relu", 100, kept, **DEAD)
    given.facts = {"models": [{"activations": {"ReLU": 2}}], "optimizers": [{"class": "SGD"}]}

    odds = rates(given, LearningRateTooHigh, DyingRelu)

    assert odds["learning_rate_too_high"] > odds["dying_relu"] + 1


@pytest.mark.parametrize(
    ("rate", "name", "step", "from_start", "blamed"),
    [
        (3.0, "SGD", 2, False, True),
        (0.1, "Adam", 2, False, True),
        (0.1, "SGD", 2, False, False),
        (3.0, "SGD", 60, False, False),  # it had been good for sixty steps
        (3.0, "SGD", 0, True, False),  # they were born dead
    ],
)
def test_units_that_die_of_the_first_steps_at_an_unusual_rate_die_of_it(rate, name, step, from_start, blamed):
    given = case("dead_relu", step, history(learning_rate=[rate] * 120), from_start=from_start, **DEAD)
    given.facts = {"models": [{"activations": {"ReLU": 2}}], "optimizers": [{"class": name}]}

    odds = rates(given, LearningRateTooHigh, DyingRelu)

    assert (odds["learning_rate_too_high"] > odds["dying_relu"] + 1) is blamed


@pytest.mark.parametrize(("largest", "step", "raw"), [(255.0, 2, True), (255.0, 100, False), (4.0, 2, False)])
def test_units_that_die_at_the_first_updates_on_raw_inputs_die_of_these(largest, step, raw):
    given = case("dead_relu", step, history(input_absmax=[largest] * 120), **DEAD)
    given.facts = {"models": [{"activations": {"ReLU": 2}}]}

    odds = rates(given, MissingNormalization, DyingRelu)

    assert (odds.get("missing_normalization", 0.0) > odds["dying_relu"] + 1) is raw


def test_a_warm_up_is_not_blamed_for_units_that_die_in_it():
    kept = history(learning_rate=[1e-4 * (step + 1) for step in range(120)])
    given = case("dead_relu", 100, kept, **DEAD)
    given.facts = {"models": [{"activations": {"ReLU": 2}}], "optimizers": [{"class": "SGD"}]}

    odds = rates(given, LearningRateTooHigh, DyingRelu)

    assert odds["dying_relu"] > odds["learning_rate_too_high"] + 1


@pytest.mark.parametrize("kind", ["saturation", "dead_relu", "divergence", "miswired"])
def test_a_momentum_of_one_comes_before_what_it_brings(kind):
    kept = history(learning_rate=[0.05] * 120)
    given = case(kind, 60, kept, relation="endless_momentum", reference=0.1)
    given.facts = {
        "models": [{"activations": {"Tanh": 2}}],
        "optimizers": [{"class": "SGD", "groups": [{"lr": 0.05, "momentum": 1.0}]}],
    }

    odds = rates(given, LearningRateTooHigh, DyingRelu, SaturatingActivation)

    assert max(odds, key=odds.__getitem__) == "learning_rate_too_high"
    assert odds["learning_rate_too_high"] > 2 + max(
        (value for word, value in odds.items() if word != "learning_rate_too_high"), default=0.0
    )


@pytest.mark.parametrize(("moved", "word"), [(0.001, "missing_normalization"), (0.4, "learning_rate_too_high")])
def test_a_loss_that_grows_while_the_weights_stay_is_one_whose_targets_grow(moved, word):
    kept = history(learning_rate=[2e-2] * 200, loss=[3.0] * 120 + [3.0 * 1.15**step for step in range(80)])
    for step in (119, 121, 122):
        kept.add_profile("parameter_update_norm", ProfileAt(step, ["a"], np.array([moved])))
        kept.add_profile("parameter_weight_norm", ProfileAt(step, ["a"], np.array([1.0])))
    given = case("explosion", 120, kept)
    given.facts = {"optimizers": [{"class": "Adam"}]}

    odds = rates(given, LearningRateTooHigh, MissingNormalization)

    assert max(odds, key=odds.__getitem__) == word
    assert odds[word] > 1


@pytest.mark.parametrize("update", [np.inf, np.nan])
def test_weights_that_are_not_finite_any_more_have_moved_without_a_bound(update):
    kept = history(loss=[1.0] * 60)
    kept.add_profile("parameter_update_norm", ProfileAt(50, ["a", "b"], np.array([update, 0.1])))
    kept.add_profile("parameter_weight_norm", ProfileAt(50, ["a", "b"], np.array([update, 1.0])))

    moved = largest_move(case("explosion", 50, kept))

    assert moved == (np.inf if update == np.inf else pytest.approx(0.1))


def test_a_forgotten_optimizer_state_is_told_from_its_relation_alone():
    given = case("miswired", 150, history(loss=[1.0]), relation="optimizer_state_left_behind", optimizer="Adam")

    opinion = MissingOptimizerState().weigh(given)

    assert (opinion.where, weight(opinion) > 2) == ("optimizer", True)


@pytest.mark.parametrize(
    ("name", "rate", "decay", "left", "speaks"),
    [
        ("AdamW", 1e-3, 10.0, 0.12, True),
        ("AdamW", 1e-3, 10.0, 0.9, False),  # the weights are as large as they were
        ("AdamW", 1e-3, 0.1, 0.12, False),  # a decay that many use
        ("Adam", 2e-3, 1e-4, 0.12, False),
        ("Adam", 1e-3, 1.0, 0.12, True),
    ],
)
def test_a_decay_that_holds_a_training_at_chance_shows_in_the_weights(name, rate, decay, left, speaks):
    kept = history(loss=[2.1] * 300, learning_rate=[rate] * 300)
    for step, share in ((0, 1.0), (280, left)):
        kept.add_profile("parameter_weight_norm", ProfileAt(step, ["a", "b"], np.array([4.0, 2.0]) * share))
    given = case("plateau", 0, kept, classes=7, chance=1.95)
    given.facts = {"optimizers": [{"class": name, "groups": [{"lr": rate, "weight_decay": decay}]}]}

    opinion = ExcessiveWeightDecay().weigh(given)

    assert (opinion is not None) == speaks
    if speaks:
        assert weight(opinion) > weight(UninformativeLabels().weigh(given))
