"""Causes of what stops learning: each speaks when its evidence is there, and is silent or beaten otherwise."""

import math

import numpy as np
import pytest
from torchvitals.agent.case import Case
from torchvitals.agent.causes.bad_initialization import BadInitialization
from torchvitals.agent.causes.dying_relu import DyingRelu
from torchvitals.agent.causes.frozen_parameters import FrozenParameters
from torchvitals.agent.causes.learning_rate_zero import LearningRateZero
from torchvitals.agent.causes.saturating_activation import SaturatingActivation
from torchvitals.agent.causes.stale_optimizer_parameters import StaleOptimizerParameters
from torchvitals.agent.diagnosis import rank_causes
from torchvitals.agent.history import History, ProfileAt
from torchvitals.detectors.detector import Finding

CAUSES = (
    BadInitialization, DyingRelu, FrozenParameters, LearningRateZero, SaturatingActivation, StaleOptimizerParameters,
)  # fmt: skip


def finding(kind, name="", first_step=10, value=0.9, **evidence):
    return Finding(
        kind=kind, severity="error", first_step=first_step, step=first_step + 5, value=value, threshold=0.8,
        name=name, evidence=evidence,
    )  # fmt: skip


def case(*findings, rate=0.1, extra=0.0, zero_from=10**9, **model):
    history = History()
    for step in range(60):
        history.add("learning_rate", step, 0.0 if step >= zero_from else rate)
        history.add("optimizer_extra_parameters", step, extra)
    facts = {"models": [model]} if model else {}
    return Case(findings=list(findings), history=history, facts=facts, events=[])


def best(case):
    kinds = {f.kind for f in case.findings}
    opinions = [
        (cause(), opinion)
        for cause in CAUSES
        if kinds & set(cause.explains) and (opinion := cause().weigh(case)) is not None
    ]
    ranked = rank_causes(opinions)
    return ranked[0] if ranked else (None, None)


DEAD = {"units": 64, "silent_units": 60, "lowest_share": 0.05, "from_start": False}


@pytest.mark.parametrize(
    ("given", "word", "where"),
    [
        (case(finding("dead_relu", "net.2.weight", **DEAD)), "dying_relu", "net.2"),
        (case(finding("dead_relu", "net.3"), activations={"ReLU": 2}), "dying_relu", "net.3"),
        (case(finding("vanishing", everywhere=True), activations={"ReLU": 2}), "dying_relu", ""),
        (
            case(finding("saturation", "net.1", reference=0.1), activations={"Tanh": 2}),
            "saturating_activation",
            "net.1",
        ),
        (
            case(finding("vanishing", "0.weight", value=1e-12), activations={"Sigmoid": 20}),
            "saturating_activation",
            "0",
        ),
        (
            case(finding("stuck_parameters", relation="learning_rate_zero"), zero_from=10),
            "learning_rate_zero",
            "optimizer",
        ),
        (
            case(
                finding(
                    "stuck_parameters", "a.weight", relation="without_gradient", parameters=6, trainable=8, all=False
                )
            ),
            "frozen_parameters",
            "a",
        ),
        (
            case(finding("stuck_parameters", relation="stale_parameters", parameters=2), extra=2.0),
            "stale_optimizer_parameters",
            "optimizer",
        ),
        (
            case(
                finding(
                    "stuck_parameters", "a.weight", relation="without_gradient", parameters=8, trainable=8, all=True
                )
            ),
            "stale_optimizer_parameters",
            "a",
        ),
    ],
)
def test_the_right_cause_comes_first(given, word, where):
    ranked, opinion = best(given)

    assert ranked.cause == word
    assert opinion.where == where
    assert len(opinion.title) < 80
    assert opinion.remedy
    assert math.isfinite(sum(clue.weight for clue in opinion.clues))


def test_units_and_numbers_are_in_the_evidence():
    ranked, _ = best(case(finding("dead_relu", "net.2.weight", **DEAD)))

    assert "60 of 64 units in net.2.weight are silent, after at most 5% before" in ranked.evidence


def test_a_net_without_squashing_activations_does_not_saturate():
    assert SaturatingActivation().weigh(case(finding("vanishing", "0.weight"), activations={"ReLU": 3})) is None


def test_a_rate_that_falls_to_nothing_is_told_from_where_it_was_highest():
    history = History()
    for step in range(60):
        history.add("learning_rate", step, 2e-3 * 0.5**step)
    found = finding("stuck_parameters", first_step=50, relation="unchanged")
    opinion = LearningRateZero().weigh(Case(findings=[found], history=history, facts={}, events=[]))

    assert "has fallen from 0.002 (step 0) to" in opinion.explanation
    assert f"is {2e-3 * 0.5**55:.3g} at step 55" in opinion.explanation


def test_a_learning_rate_that_is_there_is_not_blamed():
    assert LearningRateZero().weigh(case(finding("stuck_parameters", relation="unchanged"))) is None


def test_the_zero_is_dated_by_the_rate_itself():
    _, opinion = best(case(finding("stuck_parameters", relation="learning_rate_zero", first_step=12), zero_from=12))

    assert opinion.first_step == 12
    assert "from step 12" in opinion.title


def looked_at(given, *silent):
    entries = [f"act.{position}" for position in range(len(silent))]
    given.history.add_profile("module_silent_units", ProfileAt(0, entries, np.array(silent)))
    return given


def odds(given):
    opinion = DyingRelu().weigh(given)
    return DyingRelu.prior + sum(clue.weight for clue in opinion.clues)


def test_units_that_die_of_something_are_not_its_cause():
    died = finding("dead_relu", "net.2.weight", first_step=12, **DEAD)

    assert odds(case(died)) > 2
    assert odds(case(finding("explosion", first_step=10), died)) < 0


def test_one_layer_seen_twice_is_one_piece_of_evidence():
    by_gradient, by_output = finding("dead_relu", "2.weight", **DEAD), finding("dead_relu", "3")

    assert odds(case(by_gradient, by_output)) < odds(case(by_gradient)) + 1


def test_a_zero_gradient_is_no_dead_relu_where_the_relus_were_seen_alive():
    zero = finding("vanishing", everywhere=True)

    assert odds(looked_at(case(zero, activations={"ReLU": 1}), 0.1, 0.3)) < 0
    assert odds(looked_at(case(zero, activations={"ReLU": 1}), 0.1, 1.0)) > 0


@pytest.mark.parametrize("zero", [True, False])
def test_two_factors_that_start_at_zero_are_told_from_a_gradient_that_died(zero):
    given = case(finding("vanishing", first_step=0, everywhere=True), activations={"ReLU": 2})
    entries = ["0.lora_A", "0.lora_B"]
    weights = np.zeros(2) if zero else np.ones(2)
    given.history.add_profile("parameter_weight_norm", ProfileAt(0, entries, weights))

    ranked, opinion = best(given)

    assert (ranked.cause, opinion.where) == (("bad_initialization", "0.lora_A") if zero else ("dying_relu", ""))


def test_a_rate_of_zero_that_ended_by_itself_is_named_too():
    given = case(finding("stuck_parameters", first_step=20, relation="learning_rate_zero"), zero_from=20)
    for step in range(60, 200):
        given.history.add("learning_rate", step, 0.05)

    ranked, opinion = best(given)

    assert (ranked.cause, opinion.first_step) == ("learning_rate_zero", 20)


def test_an_optimizer_on_the_model_of_another_is_told_with_the_model_that_has_none():
    given = case(finding("stuck_parameters", first_step=0, relation="stale_parameters", parameters=4))
    given.facts.update(held_twice=4, left_out=["Generator.0.weight", "Generator.0.bias"])

    ranked, opinion = best(given)

    assert (ranked.cause, opinion.where) == ("stale_optimizer_parameters", "Generator")


@pytest.mark.parametrize("zero", [True, False])
def test_units_that_were_never_alive_behind_weights_of_zero_were_drawn_so(zero):
    given = case(finding("dead_relu", "fc2.weight", first_step=0, **{**DEAD, "from_start": True}))
    weights = np.array([0.0, 0.0]) if zero else np.array([3.0, 3.0])
    given.history.add_profile("parameter_weight_norm", ProfileAt(0, ["fc1.weight", "fc2.weight"], weights))

    ranked, _ = best(given)

    assert ranked.cause == ("bad_initialization" if zero else "dying_relu")


@pytest.mark.parametrize(("length", "largest", "word"), [
    (12.0, 3.0, "bad_initialization"), (1.0, 3.0, "saturating_activation"), (12.0, 400.0, "saturating_activation"),
])  # fmt: skip
def test_units_saturated_before_any_update_are_a_matter_of_how_weights_were_drawn_unless_inputs_are_raw(
    length, largest, word
):
    flat = finding("saturation", "1", first_step=0, reference=0.9, from_start=True)
    given = case(flat, activations={"Tanh": 3})
    given.history.add("input_absmax", 0, largest)
    given.history.add_profile("parameter_rows", ProfileAt(0, ["0.weight", "0.bias"], np.array([64.0, np.nan])))
    given.history.add_profile("parameter_weight_norm", ProfileAt(0, ["0.weight", "0.bias"], np.array([8 * length, 9])))

    ranked, opinion = best(given)

    assert (ranked.cause, opinion.where) == (word, "0" if word == "bad_initialization" else "1")


def test_weights_that_the_first_step_has_made_long_were_not_drawn_so():
    """Norms are taken after the step: at a rate of 1 an optimizer like Adam moves every weight by 1."""
    flat = finding("saturation", "1", first_step=0, reference=0.9, from_start=True)
    given = case(flat, activations={"Tanh": 3})
    for name, norm in (("parameter_rows", 64.0), ("parameter_weight_norm", 96.0), ("parameter_update_norm", 90.0)):
        given.history.add_profile(name, ProfileAt(0, ["0.weight"], np.array([norm])))

    ranked, _ = best(given)

    assert ranked.cause == "saturating_activation"


@pytest.mark.parametrize("why", ["thawed", "hidden"])
def test_what_was_meant_to_learn_and_is_in_no_optimizer_is_told_with_its_layer(why):
    given = case(finding("stuck_parameters", first_step=0, relation="neglected_parameters", parameters=6))
    given.facts.update(left_out=["blocks.0.0.weight"], left_out_because=why)

    ranked, opinion = best(given)

    assert (ranked.cause, opinion.where) == ("stale_optimizer_parameters", "blocks.0.0")
    assert ("add_param_group" if why == "thawed" else "nn.ModuleList") in opinion.remedy
