"""The causes of what blows up, each on the evidence that a run leaves."""

import math
from typing import Any

import numpy as np
import pytest
from torchvitals.agent.case import Case, Cause
from torchvitals.agent.causes.bad_batch import BadBatch
from torchvitals.agent.causes.bad_initialization import BadInitialization
from torchvitals.agent.causes.fp16_overflow import Fp16Overflow
from torchvitals.agent.causes.learning_rate_too_high import LearningRateTooHigh
from torchvitals.agent.causes.missing_normalization import MissingNormalization
from torchvitals.agent.causes.missing_zero_grad import MissingZeroGrad
from torchvitals.agent.causes.numerical_domain_error import NumericalDomainError
from torchvitals.agent.history import History, ProfileAt
from torchvitals.detectors.detector import Finding
from torchvitals.signals.records import Event

CAUSES: tuple[type[Cause], ...] = (
    BadBatch,
    BadInitialization,
    Fp16Overflow,
    LearningRateTooHigh,
    MissingNormalization,
    MissingZeroGrad,
    NumericalDomainError,
)


def case_of(kind: str, step: int, facts: dict[str, Any] | None = None, **signals: list[float]) -> Case:
    """A case with one finding at ``step`` and the given step scalars from step 0 on."""
    history = History()
    for name, values in signals.items():
        for at, value in enumerate(values):
            history.add(name, at, value)
    finding = Finding(kind=kind, severity="critical", first_step=step, step=step + 2, value=1e9, threshold=4.0)
    return Case(findings=[finding], history=history, facts=facts or {}, events=[])


def best(case: Case) -> str:
    """The word with the most log-odds; ``unknown`` has 0."""
    odds = {"unknown": 0.0}
    for cause in (kind() for kind in CAUSES):
        opinion = cause.weigh(case) if case.opening.kind in cause.explains else None
        if opinion is not None:
            odds[cause.word] = cause.prior + sum(clue.weight for clue in opinion.clues)
            assert len(opinion.title) < 80
            assert opinion.remedy
    return max(odds, key=odds.__getitem__)


def with_origin(case: Case, **details: Any) -> Case:
    told = {"operation": "aten.log.default", "module": "net.norm", "line": "train.py:31", "phase": "forward"}
    told |= {"inputs": {"min": -1.0, "max": 2.0}, "parameters_finite": True, "batch_finite": True} | details
    case.events.append((0, Event(time=0.0, step=case.opening.first_step, kind="origin", details=told)))
    return case


def test_a_leap_of_the_rate_names_itself_and_its_step() -> None:
    case = case_of("explosion", 91, learning_rate=[0.1] * 90 + [10.0] * 5, gradient_norm=[1.0] * 95)
    opinion = LearningRateTooHigh().weigh(case)

    assert best(case) == "learning_rate_too_high"
    assert opinion is not None
    assert opinion.first_step == 90


def test_a_compounding_rate_begins_where_it_left_its_level() -> None:
    rates = [0.1] * 60 + [0.1 * 1.25**step for step in range(1, 31)]
    opinion = LearningRateTooHigh().weigh(case_of("explosion", 88, learning_rate=rates))

    assert opinion is not None
    assert opinion.first_step in range(60, 64)


def test_a_blow_up_with_the_first_updates_is_the_rate_when_the_first_gradient_was_ordinary() -> None:
    facts = {"optimizers": [{"class": "SGD"}]}

    assert best(case_of("explosion", 1, facts, learning_rate=[30.0] * 5, gradient_norm=[0.5, 9, 1e4, 1e8, 1e12])) == (
        "learning_rate_too_high"
    )
    assert best(case_of("explosion", 1, facts, learning_rate=[0.01] * 4, gradient_norm=[7e9, 1e15, 1e20, 1e25])) == (
        "bad_initialization"
    )


def test_an_outlying_batch_even_when_later_batches_are_ordinary() -> None:
    inputs = [5.0 + 0.1 * (step % 3) for step in range(95)]
    inputs[90] = 7e5
    case = case_of("explosion", 90, input_absmax=inputs, learning_rate=[0.1] * 95, gradient_norm=[1.0] * 95)

    assert best(case) == "bad_batch"
    assert best(with_origin(case)) == "bad_batch", "a later overflow in a finite batch does not speak for the first"


def test_rows_of_a_broken_input_are_told_in_few_words() -> None:
    case = case_of("nonfinite", 0, input_nonfinite=[1.0], loss=[math.nan])
    with_origin(case, operation="batch", batch_finite=False, columns=[3, 9], batch_rows=list(range(32)))
    opinion = BadBatch().weigh(case)

    assert opinion is not None
    assert "rows 0 to 31, columns 3, 9. So many rows are no sample's fault" in opinion.explanation


@pytest.mark.parametrize(("length", "lasting"), [(2, False), (40, True)])
def test_inputs_that_are_larger_for_good_are_told_from_one_batch(length: int, lasting: bool) -> None:
    inputs = [5.0 + 0.1 * (step % 3) for step in range(130)]
    inputs[90 : 90 + length] = [200.0] * length
    case = case_of("loss_spike", 90, input_absmax=inputs, learning_rate=[0.1] * 130, gradient_norm=[1.0] * 130)
    opinion = BadBatch().weigh(case)

    assert best(case) == "bad_batch"
    assert opinion is not None
    assert opinion.title.startswith("The inputs are 38.5 times larger from step 90 on") == lasting
    assert (opinion.where == "input") == lasting


def test_nan_in_the_batch_beats_the_operation_that_met_it_first() -> None:
    case = case_of("nonfinite", 90, input_nonfinite=[0.0] * 90 + [1.0], loss=[1.0] * 90 + [math.nan])
    with_origin(case, operation="batch", batch_finite=False, columns=[7], batch_rows=[4])
    opinion = BadBatch().weigh(case)

    assert best(case) == "bad_batch"
    assert opinion is not None
    assert opinion.where == "input column 7"


@pytest.mark.parametrize("operation", ["aten.log.default", "aten.sqrt_backward.default", "aten.div.Tensor"])
def test_an_operation_outside_its_domain(operation: str) -> None:
    case = with_origin(case_of("nonfinite", 200, learning_rate=[0.1] * 201), operation=operation)
    opinion = NumericalDomainError().weigh(case)

    assert best(case) == "numerical_domain_error"
    assert opinion is not None
    assert opinion.where == "net.norm"
    assert "train.py:31" in opinion.title


def test_float16_is_told_from_a_domain() -> None:
    case = case_of("loss_scale_collapse", 75, {"autocast": "float16"}, loss_scale=[65536.0] * 90)
    with_origin(case, operation="aten.mul.Tensor", dtype="float16", value="inf")

    assert best(case) == "fp16_overflow"


def test_gradients_never_cleared_explain_whatever_breaks() -> None:
    for kind in ("divergence", "explosion"):
        assert best(case_of(kind, 30, gradients_reset=[0.0] * 40, learning_rate=[0.1] * 40)) == "missing_zero_grad"
    cleared = case_of("divergence", 30, gradients_reset=[1.0] * 40, learning_rate=[0.1] * 40)
    assert MissingZeroGrad().weigh(cleared) is None


def test_depth_without_normalisation() -> None:
    deep = {"models": [{"weight_layers": 20, "norms": {}}]}
    held = {"models": [{"weight_layers": 20, "norms": {"LayerNorm": 10}}]}

    assert MissingNormalization().weigh(case_of("explosion", 3, deep)) is not None
    assert MissingNormalization().weigh(case_of("explosion", 3, held)) is None


def test_without_evidence_nobody_speaks_up() -> None:
    facts = {"optimizers": [{"class": "SGD"}]}
    case = case_of("explosion", 500, facts, learning_rate=[0.1] * 505, gradient_norm=[1.0] * 505)

    assert best(case) == "unknown"


SGD = {"optimizers": [{"class": "SGD"}]}


def test_raw_inputs_are_named_before_the_weights_and_the_rate_that_they_spoil() -> None:
    blown = {"learning_rate": [0.01] * 6, "gradient_norm": [3e4, 1e9, 1e9, 1e9, 1e9, 1e9]}

    assert best(case_of("explosion", 1, SGD, input_absmax=[255.0] * 6, **blown)) == "missing_normalization"
    assert best(case_of("explosion", 1, SGD, input_absmax=[4.0] * 6, **blown)) == "bad_initialization"


def test_raw_inputs_do_not_explain_what_comes_later() -> None:
    late = case_of("explosion", 300, SGD, input_absmax=[255.0] * 310, learning_rate=[0.01] * 300 + [5.0] * 10)

    assert best(late) == "learning_rate_too_high"


def test_an_operation_that_was_fed_astronomical_numbers_is_not_outside_its_domain() -> None:
    steps = {"learning_rate": [0.01] * 30, "loss": [1.0] * 30}
    wide = with_origin(case_of("nonfinite", 20, **steps), operation="aten.pow", inputs={"min": -2e21, "absmax": 2e21})
    near = with_origin(case_of("nonfinite", 20, **steps), operation="aten.pow", inputs={"min": -1.0, "absmax": 2.0})

    assert best(wide) != "numerical_domain_error"
    assert best(near) == "numerical_domain_error"


def test_a_finite_outlier_is_the_batch_even_when_it_ends_in_infinity() -> None:
    inputs = [3.0] * 20 + [9e3] + [3.0] * 5
    case = with_origin(
        case_of("nonfinite", 20, learning_rate=[0.01] * 26, input_absmax=inputs, input_nonfinite=[0.0] * 26),
        operation="aten.pow", inputs={"min": -2e21, "absmax": 2e21},
    )  # fmt: skip

    assert best(case) == "bad_batch"


def test_a_schedule_that_climbs_slowly_is_named_when_it_is_beyond_what_is_usual() -> None:
    rates = [0.02 * 1.02**step for step in range(240)]

    assert best(case_of("divergence", 190, SGD, learning_rate=rates)) == "learning_rate_too_high"


def test_the_rank_that_made_it_is_named_though_all_ranks_have_it_within_the_step() -> None:
    case = case_of("nonfinite", 3, input_nonfinite=[0.0, 0.0, 0.0, 1.0])
    case.world_size = 3
    elsewhere = {"complete": False, "operation": "", "module": "", "line": "", "phase": "backward"}
    for rank in (0, 1):
        case.events.append((rank, Event(time=0.0, step=3, kind="origin", details=elsewhere)))
    found = {"complete": True, "operation": "batch", "batch_finite": False, "batch_rows": [5], "columns": [3]}
    case.events.append((2, Event(time=1.0, step=3, kind="origin", details=found)))
    opinion = BadBatch().weigh(case)

    assert best(case) == "bad_batch"
    assert opinion is not None
    assert (opinion.rank, opinion.where) == (2, "input column 3")


def test_without_a_replay_the_rank_is_the_one_whose_own_loss_was_not_finite() -> None:
    case = case_of("nonfinite", 3)
    case.world_size = 2
    for step in range(5):
        case.history.add("loss", step, 1.0 if step < 4 else math.nan, rank=0)
        case.history.add("loss", step, 1.0 if step < 3 else math.nan, rank=1)
    opinion = NumericalDomainError().weigh(case)

    assert opinion is not None
    assert opinion.rank == 1


def test_a_batch_that_is_not_finite_is_to_blame_in_the_middle_of_a_warm_up_too() -> None:
    rates = [1e-4 * 1.05**step for step in range(66)]
    case = with_origin(case_of("nonfinite", 64, learning_rate=rates), operation="batch", batch_finite=False)

    assert best(case) == "bad_batch"


def test_a_first_gradient_that_is_not_finite_says_nothing_of_how_weights_were_drawn() -> None:
    case = case_of("nonfinite", 0, gradient_norm=[math.nan], loss=[0.7])
    case.opening.evidence["signals"] = ["gradient_norm"]

    assert BadInitialization().weigh(with_origin(case, operation="aten.sqrt", phase="loss")) is None


def test_a_target_longer_than_its_input_is_the_batch_and_not_the_loss() -> None:
    ordinary = {"loss": [1.0] * 52, "gradient_norm": [1.0] * 52, "input_absmax": [2.0] * 52}
    case = case_of("nonfinite", 50, **ordinary, input_nonfinite=[0.0] * 52)
    with_origin(case, operation="aten.ctc_loss", value="inf", phase="loss", module="", batch_rows=[7])
    opinion = BadBatch().weigh(case)

    assert best(case) == "bad_batch"
    assert opinion is not None
    assert opinion.where == "target row 7"


def plain_sgd(momentum: float) -> dict[str, Any]:
    return {"optimizers": [{"class": "SGD", "groups": [{"lr": 0.1, "momentum": momentum}]}]}


@pytest.mark.parametrize(
    ("momentum", "lowest", "word"),
    [(0.9, 1.7, "learning_rate_too_high"), (0.0, 1.7, "unknown"), (0.9, 0.4, "unknown")],
)
def test_momentum_counts_where_nothing_had_been_learnt(momentum: float, lowest: float, word: str) -> None:
    losses = [2.3, *[lowest] * 18, 4.0, 9.0, 30.0]
    case = case_of(
        "explosion", 19, plain_sgd(momentum), learning_rate=[0.1] * 22, loss=losses, gradient_norm=[2.0] * 22
    )

    assert best(case) == word


@pytest.mark.parametrize(
    ("rows", "optimizer", "word"),
    [
        ([32.0] * 300 + [1024.0] * 5, "SGD", "learning_rate_too_high"),
        ([32.0] * 300 + [1024.0] * 5, "Adam", "unknown"),  # its steps are as large as ever
        ([32.0] * 200 + [1024.0] * 105, "SGD", "unknown"),  # a hundred steps went well
        ([32.0] * 300 + [64.0] * 5, "SGD", "unknown"),
    ],
)
def test_a_loss_that_is_summed_makes_steps_grow_with_the_batch(rows: list[float], optimizer: str, word: str) -> None:
    facts = {"optimizers": [{"class": optimizer, "groups": [{"lr": 1e-3, "momentum": 0.0}]}]}
    losses = [2.3 * 0.99**step for step in range(300)] + [1e3] * 5
    case = case_of("explosion", 300, facts, learning_rate=[1e-3] * 305, loss=losses, batch_items=rows)

    assert best(case) == word
    opinion = LearningRateTooHigh().weigh(case)
    assert word == "unknown" or (opinion is not None and opinion.first_step == 300 and "reduction" in opinion.remedy)


@pytest.mark.parametrize(("onset", "told"), [(50, True), (49, True), (40, False)])
def test_inputs_that_are_empty_from_a_step_on(onset: int, told: bool) -> None:
    case = case_of("divergence", onset, input_absmax=[2.5] * 50 + [0.0] * 20, loss=[0.1] * 50 + [2.3] * 20)
    opinion = BadBatch().weigh(case)

    assert (opinion is not None and "inputs are empty" in opinion.title and opinion.where == "input") is told


def test_a_rate_that_rises_step_by_step_is_told_from_where_it_began() -> None:
    rates = [0.02] * 100 + [0.02 * 1.03**step for step in range(1, 120)]
    opinion = LearningRateTooHigh().weigh(case_of("explosion", 200, SGD, learning_rate=rates))

    assert opinion is not None
    assert opinion.first_step == 100
    assert opinion.explanation.startswith("The learning rate rose step by step from 0.02 before step 100 to 0.")


@pytest.mark.parametrize(("moved", "cause"), [(0.9, "learning_rate_too_high"), (0.001, "bad_initialization")])
def test_outputs_after_a_first_update_that_made_another_net_say_nothing_of_the_draw(moved: float, cause: str) -> None:
    case = case_of("nonfinite", 1, SGD, learning_rate=[0.05] * 4, gradient_norm=[260.0, math.nan])
    for name, step, value in (
        ("parameter_update_norm", 0, moved),
        ("parameter_weight_norm", 0, 1.0),
        ("module_output_absmax", 1, 3550.0),
    ):
        case.history.add_profile(name, ProfileAt(step, ["rec"], np.array([value])))

    assert best(case) == cause


@pytest.mark.parametrize(
    ("before", "expected"), [(0, "Gradients are never"), (40, "From step 40 on gradients are not")]
)
def test_gradients_that_were_cleared_until_some_step_are_not_never_cleared(before: int, expected: str) -> None:
    resets = [1.0] * before + [0.0] * 20
    opinion = MissingZeroGrad().weigh(case_of("divergence", before, gradients_reset=resets, gradient_norm=[1.0] * 60))

    assert opinion is not None
    assert opinion.title.startswith(expected)
