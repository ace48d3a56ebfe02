"""What is drawn: gaps where values are missing, crosses where they are not finite, incidents where they began."""

import math

import pytest
from torchvitals.dashboard.answers import Incident, Profiles, Series
from torchvitals.dashboard.charts import band_over_ranks, drawing, labelled, line_chart, marks
from torchvitals.dashboard.heat import MOST_ROWS, MOST_STEPS, beginnings, cells, group_rows, heat_map
from torchvitals.dashboard.palette import DARK, LIGHT

NAN, INF = math.nan, math.inf


def series(last, signal="loss", rank=0, optimizer=0) -> Series:
    """One bucket per value."""
    finite = [value if value is not None and math.isfinite(value) else None for value in last]
    return Series(
        signal=signal,
        rank=rank,
        optimizer=optimizer,
        step=list(range(len(last))),
        time=[0.0] * len(last),
        min=finite,
        max=finite,
        last=list(last),
        nonfinite=[int(value is not None and not math.isfinite(value)) for value in last],
    )


def test_a_line_breaks_where_values_are_not_finite_and_a_cross_stands_there():
    shown = drawing([series([1.0, 2.0, NAN, INF, 3.0])], "1")

    assert [(row["step"], row["value"]) for row in shown.points] == [(0, 1.0), (1, 2.0), (4, 3.0)]
    assert shown.points[1]["piece"] != shown.points[2]["piece"]
    assert [row["step"] for row in shown.crosses] == [2, 3]


def test_a_bucket_with_good_and_bad_values_shows_both():
    one = Series(signal="loss", step=[9], time=[0.0], min=[1.0], max=[4.0], last=[NAN], nonfinite=[3])

    shown = drawing([one], "1")

    assert (shown.points[0]["low"], shown.points[0]["high"], shown.crosses[0]["count"]) == (1.0, 4.0, 3)


def test_the_axis_is_logarithmic_only_where_it_helps():
    assert drawing([series([1.0, 1e6])], "1").log
    assert not drawing([series([1.0, 2.0])], "1").log
    assert not drawing([series([-1.0, 1e6])], "1").log
    assert not drawing([series([1.0, 1e6])], "1", log=False).log


def test_a_logarithmic_axis_leaves_out_what_it_cannot_hold():
    shown = drawing([series([0.0, -1.0, 5.0])], "1", log=True)

    assert [row["value"] for row in shown.points] == [5.0]
    assert not drawing([series([-1.0, -2.0])], "1", log=True).log


def test_units_fit_their_values():
    assert drawing([series([3 * 2.0**30])], "By").points[0]["value"] == 3.0
    assert drawing([series([0.004])], "s").unit.label == "ms"


def test_lines_are_called_by_what_tells_them_apart():
    assert [name for name, _ in labelled([series([1.0])])] == ["loss"]
    assert [name for name, _ in labelled([series([1.0], rank=0), series([1.0], rank=1)])] == ["rank 0", "rank 1"]
    both = [series([1.0], "data_seconds"), series([1.0], "step_seconds")]
    assert [name for name, _ in labelled(both)] == ["data", "step"]


def test_many_ranks_become_a_band():
    ranks = [series([float(rank), float(rank)], rank=rank) for rank in range(64)]

    (band,) = band_over_ranks([*ranks[:63], series([63.0, NAN], rank=63)])

    assert (band.min, band.max, band.nonfinite) == ([0.0, 0.0], [63.0, 62.0], [0, 1])
    assert band.last[0] == 32.0


def incident(step, severity="error", kind="explosion") -> Incident:
    return Incident(id=f"{kind}{step}", kind=kind, severity=severity, first_step=step, title=f"{kind} at {step}")


def test_incidents_are_marked_where_they_began_and_within_what_is_drawn():
    found = [incident(5), incident(5, "critical", "nonfinite"), incident(90), incident(500), incident(None)]

    rules = marks(found, 0, 100, LIGHT)

    assert [rule["step"] for rule in rules] == [5, 90]
    assert rules[0]["label"] == "▲ explosion ◆ nonfinite"
    assert [rule["room"] for rule in rules] == ["right", "left"]
    assert rules[0]["tone"] == LIGHT.severity["error"]


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_the_specification_stays_while_the_data_grows(colours):
    """The browser redraws a chart from nothing when its specification changes: that would be flicker."""

    def specification(count: int) -> dict:
        shown = drawing([series([1.0 + n for n in range(count)] + [NAN])], "1", log=False)
        spec = line_chart(shown, marks([incident(1)], 0, count, colours), colours).to_dict()
        assert set(spec.pop("datasets")) == {"points", "crosses", "rules"}
        return spec

    assert specification(10) == specification(200)


def test_severity_is_told_by_shape_and_word_too():
    for word in ("critical", "error", "warning", "info"):
        assert marks([incident(1, word)], 0, 9, DARK)[0]["label"].startswith(tuple("◆▲●○"))
    assert len({marks([incident(1, w)], 0, 9, DARK)[0]["label"] for w in DARK.severity}) == 4


def profiles(values, entries=None, steps=None) -> Profiles:
    entries = entries or [f"layer.{n}" for n in range(len(values[0]))]
    return Profiles(signal="s", entries=entries, step=steps or list(range(len(values))), values=values)


def test_cells_tell_values_zeros_and_what_is_not_finite_apart():
    found = cells(profiles([[1.0, 0.0, NAN, None], [-2.0, INF, 3.0, 4.0]]))

    assert {(cell["step"], cell["row"], cell["value"]) for cell in found.values} == {
        (0, "layer.0", 1.0),
        (1, "layer.0", 2.0),
        (1, "layer.2", 3.0),
        (1, "layer.3", 4.0),
    }
    assert [(cell["step"], cell["row"]) for cell in found.zeros] == [(0, "layer.1")]
    assert {(cell["step"], cell["what"]) for cell in found.crosses} == {(0, "NaN"), (1, "Inf")}


def test_layers_are_put_together_by_module_and_a_bad_one_shows():
    entries = [f"blocks.{block}.{part}.weight" for block in range(40) for part in ("a", "b", "c")]
    values = [[1.0] * 120]
    values[0][7], values[0][8] = NAN, 1e9

    found = cells(profiles(values, entries))

    assert found.grouped
    assert found.rows[:2] == ["blocks.0", "blocks.1"]
    assert [cell["row"] for cell in found.crosses] == ["blocks.2"]
    assert len(found.values) == 39


def test_names_without_modules_are_put_together_in_order():
    rows = group_rows([f"p{n}" for n in range(1000)])

    assert len(set(rows)) <= MOST_ROWS
    assert rows[0] == rows[1] == "p0 …"


def test_many_steps_are_thinned_and_the_newest_is_kept():
    found = cells(profiles([[float(n + 1)] for n in range(1003)]))
    steps = sorted(cell["step"] for cell in found.values)

    assert len(steps) <= MOST_STEPS
    assert steps[-1] == 1002


@pytest.mark.parametrize("values", [[[1.0]], [[0.0]], [[NAN]], [[1e-300, 1e300]], [[5.0, 5.0], [5.0, 5.0]]])
def test_any_map_can_be_drawn(values):
    found = cells(profiles(values))

    spec = heat_map(found, beginnings(found, [incident(0)]), DARK, "norm").to_dict()

    assert spec["layer"]
    assert set(spec["datasets"]) <= {"values", "zeros", "crosses", "began"}


def test_an_incident_is_marked_at_the_first_column_behind_it():
    found = cells(profiles([[1.0], [2.0], [3.0]], steps=[0, 10, 20]))

    assert [row["step"] for row in beginnings(found, [incident(11), incident(21), incident(None)])] == [20]
