"""The pages that are handed on: what is drawn in them, and that they say what ran."""

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from made_up import goodbye, writer
from torchvitals.agent.cli import main
from torchvitals.agent.heat_map import MOST_LAYERS, MOST_STEPS, heat_map
from torchvitals.agent.history import ProfileAt, Series
from torchvitals.agent.plots import COLOURS, line_plot
from torchvitals.signals.records import Axis, Event, Profile, pack_floats

NAN = float("nan")
FACTS = {
    "models": [{"name": "Net", "parameters": 1234567, "frozen": 10, "dtype": "bfloat16", "compiled": True}],
    "optimizers": [{"class": "AdamW", "groups": [{"lr": 0.001, "fused": None, "amsgrad": False}]}],
    "loader": {"batch_size": 8, "workers": 2, "sampler": "RandomSampler"},
    "seeds": {"torch": 77},
    "versions": {"torch": "2.13.0"},
    "flags": {"threads": 3},
    "guard": "skip",
    "code": {"script": "train.py", "files": {"train.py": "0123", "net.py": "4567"}, "commit": "abcdef"},
}


def drawing(svg: str) -> ET.Element:
    """The SVG as a tree: it must be well-formed to be drawn by everything."""
    return ET.fromstring(svg)


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in drawing(svg).iter("text")]


def profiles(count: int, layers: int, value: float = 1.0) -> list[ProfileAt]:
    names = [f"layer{index}.weight" for index in range(layers)]
    return [ProfileAt(step, names, np.full(layers, value)) for step in range(count)]


def test_a_heat_map_shows_layers_steps_and_what_is_not_finite() -> None:
    seen = profiles(5, 3)
    seen[4].values[1] = NAN

    svg = heat_map("parameter_gradient_norm", seen)

    assert texts(svg)[1:4] == ["layer0.weight", "layer1.weight", "layer2.weight"]
    assert len(list(drawing(svg).iter("rect"))) == 15
    assert texts(svg).count("×") == 1
    assert {"step 0", "4"} <= set(texts(svg))


def test_of_many_layers_those_that_tell_most_are_shown() -> None:
    seen = profiles(200, 500)
    seen[120].values[321] = NAN
    for step, profile in enumerate(seen):
        profile.values[400] = 10.0**-step if step < 20 else 1.0

    svg = heat_map("parameter_gradient_norm", seen[::2])

    names = [text for text in texts(svg) if text.startswith("layer")]
    assert len(names) == MOST_LAYERS
    assert "layer400.weight" in names
    assert len(list(drawing(svg).iter("rect"))) <= MOST_LAYERS * MOST_STEPS
    assert heat_map("module_silent_units", profiles(9, 4, value=-1.0)) == "", "nothing was measured"
    assert heat_map("module_silent_units", profiles(1, 4)) == "", "one step is no course"


def test_lines_of_several_ranks_are_named_in_their_colours() -> None:
    line = Series(np.arange(3), np.array([1.0, 2.0, 3.0]))

    several = drawing(line_plot("loss", [("rank 0", line), ("rank <1>", line)]))
    alone = line_plot("loss", [("rank 0", line)])

    assert {span.text: span.get("fill") for span in several.iter("tspan")} == {
        "rank 0": COLOURS[0],
        "rank <1>": COLOURS[1],
    }
    assert "tspan" not in alone


def test_every_form_says_what_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHVITALS_DIR", str(tmp_path / "runs"))
    spool = writer(tmp_path / "runs")
    spool.write(Event(1000.0, 0, "facts", FACTS))
    spool.write(Axis("parameter:0", "parameter", ["<first>.weight", "last.weight"]))
    for step in range(40):
        spool.step(step, 1000.0 + step, {"loss": 0.5, "gradient_norm": 0.1, "rss_bytes": 3.0 * 2**20})
        norms = pack_floats(np.array([0.1, 0.2]))
        spool.write(Profile(step, 1000.0 + step, "parameter:0", {"parameter_gradient_norm": norms}))
    goodbye(spool, 40)
    page = tmp_path / "page.html"

    assert main(["diagnose", "--markdown"]) == 0
    assert main(["diagnose", "--html", str(page)]) == 0

    markdown, html = capsys.readouterr().out, page.read_text()
    for told in (
        "1,234,567 parameters, 10 of them frozen, bfloat16, compiled", "AdamW: lr 0.001", "8 per batch, 2 workers",
        "torch 77", "threads 3", "train.py, net.py, commit abcdef",
    ):  # fmt: skip
        assert told in markdown
        assert told in html
    assert "- guard: skip" in markdown
    assert "3 MiB" in html
    assert "http" not in html.replace("http-equiv", "")
