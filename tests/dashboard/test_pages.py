"""The pages in Streamlit's own test driver, over a staged agent."""

import math
import re

import pytest
from torchvitals.dashboard.__main__ import arguments, settings

RUN = "20260101-120000-nan_loss-0000"
STORIES = ("nan_loss", "memory_leak", "ddp_desync", "amp_overflow", "dead_relu", "data_drift")


def test_all_runs_are_told_at_a_glance(staged, page, texts):
    staged()
    app = page()
    said = texts(app)

    assert {metric.label: metric.value for metric in app.metric} == {
        "▶ running": "2",
        "✗ failed": "1",
        "? lost": "0",
        "◆ critical": "2",
        "▲ error": "2",
        "● warning": "2",
    }
    (table,) = (frame.value for frame in app.dataframe)
    assert list(table["name"]) == [*STORIES, "healthy"]
    first, drift = table.iloc[0], table.iloc[5]
    assert (first["state"], first["incidents"], first["loss"]) == ("✗ failed", "◆ critical", "NaN")
    assert drift["progress"] == "4,000 requests"
    assert "numerical domain error" in said


def test_a_hundred_runs_are_one_table_and_few_questions(staged, page):
    stage = staged(100)
    app = page()

    assert [len(frame.value) for frame in app.dataframe] == [100]
    assert len(stage.asked) <= 4


def test_runs_are_found_by_words(staged, page):
    staged()
    app = page()
    app.text_input(key="find").input("LEAK node-1").run()

    assert [list(frame.value["name"]) for frame in app.dataframe] == [["memory_leak"]]
    app.text_input(key="find").input("no such thing").run()
    assert len(app.dataframe) == 0


def test_an_agent_that_has_seen_nothing_says_how_to_begin(staged, page, texts):
    staged(empty=True)

    assert "torchvitals run python train.py" in texts(page())


@pytest.mark.parametrize("query", [{}, {"run": RUN}, {"incident": "nan_loss-nonfinite"}])
def test_an_absent_agent_is_said_with_what_to_type(pointed, page, texts, query):
    pointed("http://127.0.0.1:9")
    said = texts(page(**query))

    assert "No agent answers at" in said
    assert "torchvitals agent" in said


def test_a_wanted_token_is_said(staged, page, texts):
    staged(token="secret")

    assert "TORCHVITALS_TOKEN" in texts(page())


def test_a_program_that_is_no_agent_is_said(staged, page, texts):
    staged(answer=b"<html>hello</html>")

    assert "something else than the agent" in texts(page())


@pytest.mark.parametrize("story", [*STORIES, "healthy"])
def test_every_run_has_its_page(staged, page, texts, story):
    staged()
    app = page(run=f"20260101-120000-{story}-0000")
    said = texts(app).replace("\\", "")

    assert app.title[0].value.replace("\\", "") == story
    assert f"python {story}.py" in said
    assert "Transformer" in said
    assert "not seen: the model is compiled" in said
    assert app.get("vega_lite_chart") or app.get("arrow_vega_lite_chart")


def test_a_run_shows_its_values_that_are_not_finite(staged, page, texts):
    staged()

    assert texts(page(run=RUN)).count("✕ 4 values are NaN or Inf.") == 2


def test_one_rank_can_be_chosen(staged, page):
    stage = staged()
    run = "20260101-120000-ddp_desync-0000"
    app = page(run=run)
    stage.asked.clear()
    app.selectbox(key=f"rank-{run}").select(1).run()

    asked = [path for path in stage.asked if "/series" in path]
    assert asked
    assert all("rank=1" in path for path in asked)


def test_the_newest_steps_can_be_chosen(staged, page):
    stage = staged()
    app = page(run=RUN)
    stage.asked.clear()
    app.segmented_control(key=f"window-{RUN}").set_value("last 100").run()

    assert any("start=512" in path for path in stage.asked)


@pytest.mark.parametrize("story", STORIES)
def test_every_incident_has_its_page(staged, page, texts, story):
    stage = staged()
    identity, told = next((key, one) for key, one in stage.incidents.items() if one["name"] == story)
    app = page(incident=identity)
    said = texts(app).replace("\\", "")

    for part in (told["title"], told["explanation"], told["remedy"], *told["causes"][0]["evidence"]):
        assert part in said
    assert f"began at {'request' if story == 'data_drift' else 'step'} **{told['first_step']:,}**" in said


def test_causes_are_ranked_with_their_share(staged, page):
    staged()
    app = page(incident="nan_loss-nonfinite")
    shares = [(bar.proto.value, bar.proto.text) for bar in app.get("progress")]

    assert shares == [
        (93, "**numerical domain error** — 93 %"),
        (5, "**learning rate too high** — 5 %"),
        (1, "**bad batch** — 1 %"),
    ]


def test_an_incident_is_acknowledged_silenced_and_resolved(staged, page, texts):
    stage = staged()
    identity = "nan_loss-nonfinite"
    app = page(incident=identity)
    app.button(key="Acknowledge-button").click().run()
    assert stage.incidents[identity]["status"] == "acknowledged"
    assert "acknowledged by" in texts(app)
    assert "Acknowledge-button" not in [button.key for button in app.button]

    app.button(key=f"silence-3600-{identity}").click().run()
    assert re.search(r"silenced for another (59|60) min", texts(app))

    app.button(key="Resolve-button").click().run()
    assert stage.incidents[identity]["status"] == "resolved"
    assert "Resolved just now." in texts(app)
    assert len(app.button) == 0


@pytest.mark.parametrize("query", [{"run": "nobody"}, {"incident": "nothing"}])
def test_what_is_not_there_is_said(staged, page, texts, query):
    staged()

    assert "There is no" in texts(page(**query))


def test_names_of_the_job_are_no_markup(staged, page, texts):
    stage = staged()
    told = stage.incidents["nan_loss-nonfinite"]
    told.update(title="# [x](javascript:alert(1)) <b>", where="a|b`c", explanation="$\\frac$ *x* :red[y]", rank=None)
    app = page(incident="nan_loss-nonfinite")

    assert app.title[0].value == r"\# \[x\]\(javascript\:alert\(1\)\) \<b\>"
    assert "`a¦b'c`" in texts(app)
    page()


def test_an_incident_with_hardly_any_words_has_a_page(staged, page, texts):
    stage = staged()
    stage.incidents = {
        "bare": {"id": "bare", "run": RUN, "kind": "explosion", "first_step": None, "confidence": math.nan}
    }

    app = page(incident="bare")

    assert "No remedy is known" in texts(app)
    assert [bar.proto.text for bar in app.get("progress")] == ["**unknown** — < 1 %"]
    page(run=RUN)
    page()


def test_nothing_is_sent_anywhere_and_no_window_opens():
    told = settings("127.0.0.1", 7412)

    assert told["browser.gatherUsageStats"] == "false"
    assert told["server.headless"] == "true"
    assert (arguments([]).host, arguments([]).port) == ("127.0.0.1", 7412)


def test_all_settings_are_known_to_streamlit():
    from streamlit import config

    known = config.get_config_options()
    assert [name for name in settings("127.0.0.1", 1) if name not in known] == []
