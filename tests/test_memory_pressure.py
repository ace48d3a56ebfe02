"""Memory that will not last is told of in time, whatever the leak's rate and wherever it begins."""

import numpy as np
import pytest
from torchvitals.detectors.detector import Reading
from torchvitals.detectors.ladder import BLOCKS, Ladder
from torchvitals.detectors.memory_pressure import MemoryPressure
from torchvitals.hooks.headroom import Headroom

LEFT = 8e9


def told(kept: np.ndarray, every: int = 4) -> list[tuple[int, int]]:
    """First and certain step of what is found in memory that is kept, read every so many steps."""
    detector, rng = MemoryPressure(), np.random.default_rng(0)
    found = []
    for step, bytes_kept in enumerate(kept):
        values = {"rss_bytes": 1e9 + bytes_kept + 2e5 * rng.normal()} if step % every == 0 else {}
        if step % 50 == 0:
            values["memory_headroom_bytes"] = LEFT - bytes_kept
        found += [(f.first_step, f.step) for f in detector.update(Reading.of(step, **values))]
    return found


@pytest.mark.parametrize("onset", [0, 100, 1000])
@pytest.mark.parametrize("steps", [400, 900, 3000])
def test_a_leak_is_told_of_before_a_quarter_of_the_headroom_is_gone(onset: int, steps: int) -> None:
    kept = LEFT / steps * np.maximum(0, np.arange(onset + steps) - onset)
    (finding,) = told(kept)

    assert kept[finding[1]] < LEFT / 4
    assert abs(finding[0] - onset) <= 0.07 * steps + 16


@pytest.mark.parametrize(
    "kept",
    [
        2e9 * (1 - np.exp(-np.arange(4000) / 300)),  # a curve: caches warm up
        4e9 * np.floor(np.arange(4000) / 500) / 8,  # stairs: sequences grow from stage to stage
        0.5e9 * (np.arange(4000) % 100) / 100,  # to and fro
        0.5e9 * np.minimum(np.arange(4000) / 1000, 1),  # a cache that is filled and small
    ],
    ids=["curve", "stairs", "saw", "cache"],
)
def test_what_is_no_forecast(kept: np.ndarray) -> None:
    assert told(kept) == []


def test_each_rung_of_the_ladder_has_the_lowest_values_of_its_blocks() -> None:
    """To a quarter of the largest difference there is; a shortest block without a value repeats the one before."""
    rng, ladder, lows = np.random.default_rng(1), Ladder(), [np.inf]
    looked, fresh = 0, True
    for step in np.cumsum(rng.integers(1, 7, 900)).tolist():
        for turned in ladder.turns(step):
            for rung in turned[:5]:
                if ladder._blocks >= BLOCKS << rung:
                    newest = np.array(lows)[ladder._blocks - (BLOCKS << rung) : ladder._blocks]
                    expected = newest.reshape(BLOCKS, 1 << rung).min(axis=1)
                    np.testing.assert_allclose(ladder.blocks(rung, [1])[0], expected, rtol=0, atol=1.5e6)
                    (who, rise), risen = ladder.risen(rung, 1e4), expected[-1] - expected[0]
                    assert abs(rise[-1] - risen) <= 2e6 if 1 in who else risen < 2e6
                    looked += 1
            lows.append(lows[-1])
            fresh = True
        value = 1e9 + 1e6 * rng.uniform(-3, 3) + 1e5 * step
        lows[-1] = value if fresh else min(value, lows[-1])
        fresh = False
        ladder.add(np.array([0.0, value]))

    assert looked > 500


def test_headroom_is_the_least_of_machine_and_control_groups(tmp_path) -> None:
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    group = cgroups / "jobs" / "one"
    (proc / "self").mkdir(parents=True)
    group.mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 64 kB\nMemAvailable: 4000000 kB\n")
    (proc / "self" / "cgroup").write_text("0::/jobs/one\n")
    (group / "memory.max").write_text("max\n")
    (cgroups / "jobs" / "memory.max").write_text("3000000000\n")
    (cgroups / "jobs" / "memory.current").write_text("1000000000\n")
    (cgroups / "jobs" / "memory.stat").write_text("anon 5\ninactive_file 200000000\n")
    headroom = Headroom(proc=proc, cgroups=cgroups)

    assert headroom.fresh()["memory_headroom_bytes"] == 2.2e9
    assert headroom.fresh() == {}
    assert "memory_headroom_bytes" not in Headroom(proc=tmp_path / "none", cgroups=tmp_path / "none").fresh()
