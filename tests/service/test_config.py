"""Settings: argument, then environment, then file, then default; and what is said when one cannot be used."""

from pathlib import Path

import pytest
from torchvitals.agent.config import AlertmanagerSink, ConfigError, Settings, WebhookSink, find_file, load


def file_with(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "torchvitals.toml"
    path.write_text(text)
    return path


def test_argument_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = file_with(tmp_path, "[agent]\nport = 1\nhost = 'localhost'\nsince = 60\nresolve_after = 5.0\n")
    environ = {"TORCHVITALS_PORT": "2", "TORCHVITALS_SINCE": "61.5", "TORCHVITALS_RUN": "not ours"}
    settings = load({"port": 3, "since": None}, environ, file)

    assert (settings.port, settings.since, settings.host, settings.resolve_after) == (3, 61.5, "localhost", 5.0)
    assert settings.poll_seconds == Settings().poll_seconds


def test_the_directory_of_the_jobs_is_the_agents(tmp_path: Path) -> None:
    settings = load({}, {"TORCHVITALS_DIR": str(tmp_path / "runs")}, file_with(tmp_path, ""))
    assert settings.runs_directory == tmp_path / "runs"
    assert settings.database_path == tmp_path / "runs" / "agent.duckdb"


def test_directories_of_other_hosts_are_a_list_everywhere(tmp_path: Path) -> None:
    here = ["/runs", "/b", "/c"]
    ways = (
        load({"directory": "/runs", "also": ["/b", "/c"]}, {}, file_with(tmp_path, "[agent]\nalso = ['/a']\n")),
        load({}, {"TORCHVITALS_DIR": "/runs", "TORCHVITALS_ALSO": "/b:/c"}, file_with(tmp_path, "")),
        load({"directory": "/runs"}, {}, file_with(tmp_path, "[agent]\nalso = ['/b', '/c']\n")),
    )

    assert [[str(place) for place in settings.runs_directories] for settings in ways] == [here] * 3


def test_sinks_of_the_file_and_in_short(tmp_path: Path) -> None:
    text = "[[sinks]]\nkind = 'webhook'\nurl = 'https://x/y'\ntoken = 'env:PAGER'\nseverity = 'critical'\n"
    settings = load({"alertmanager": "http://am:9093"}, {}, file_with(tmp_path, text))
    assert settings.all_sinks == (
        WebhookSink(url="https://x/y", token="env:PAGER", severity="critical"),
        AlertmanagerSink(url="http://am:9093"),
    )


def test_the_file_is_looked_for_here_then_in_the_configuration_home(tmp_path: Path, monkeypatch) -> None:
    home, here = tmp_path / "config", tmp_path / "here"
    (home / "torchvitals").mkdir(parents=True)
    here.mkdir()
    monkeypatch.chdir(here)
    environ = {"XDG_CONFIG_HOME": str(home)}
    assert find_file(environ) is None
    there = file_with(home / "torchvitals", "")
    assert find_file(environ) == there
    nearer = file_with(here, "")
    assert find_file(environ) == nearer


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[agent]\nprot = 1", r"\[agent\]: unknown setting `prot`; did you mean `port`\?"),
        ("[agnet]\nport = 1", r"unknown setting `agnet`; did you mean `agent`\?"),
        ("[agent]\nport = '1'", r"Expected `int`, got `str` - at `\$.port`"),
        ("[[sinks]]\nkind = 'alertmanager'\nurl = 1", r"Expected `str`, got `int` - at `\$.sinks\[0\].url`"),
        ("[[sinks]]\nkind = 'pigeon'\nurl = 'http://x'", r"Invalid value 'pigeon' - at `\$.sinks\[0\].kind`"),
        ("[[sinks]]\nkind = 'webhook'\nurl = 'http://x'\nsevrity = 'error'", r"unknown field `sevrity`"),
        ("[[sinks]]\nkind = 'webhook'\nurl = 'ftp://x'", "must begin with http"),
        ("[[sinks]]\nkind = 'webhook'\nurl = 'http://x'\ntoken = 's3cret'", 'use token = "env:NAME"'),
        ("[agent]\ntoken = 's3cret'", 'use token = "env:NAME"'),
        ("[agent]\ntoken = 'env:NOWHERE'", "the environment has no NOWHERE"),
        ("agent = 3", "must be a table"),
        ("[agent", "torchvitals.toml: "),
        ("[agent]\nhost = '0.0.0.0'", "needs a token"),
        ("[agent]\nport = 70000", "not between 0 and 65535"),
        ("[agent]\nlog_format = 'xml'", "none of auto, json, text"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load({}, {}, file_with(tmp_path, text))


def test_environment_and_missing_files_are_named_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="environment TORCHVITALS_PORT: Expected `int`, got `str`"):
        load({}, {"TORCHVITALS_PORT": "many"}, file_with(tmp_path, ""))
    with pytest.raises(ConfigError, match=r"absent\.toml: No such file"):
        load({}, {}, tmp_path / "absent.toml")


def test_secrets_come_from_environment_or_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    file = file_with(tmp_path, f"[agent]\nhost = '0.0.0.0'\ntoken = 'file:{tmp_path}/token'\n")
    assert load({}, {}, file).token == "from-file"
    assert load({}, {"TORCHVITALS_TOKEN": "direct"}, file).token == "direct"


def test_every_setting_is_documented() -> None:
    source = Path(__import__("torchvitals.agent.config", fromlist=["x"]).__file__).read_text()
    for name in Settings.__struct_fields__:
        declaration = source.index(f"    {name}: ")
        following = source[declaration:].split("\n", 2)[1]
        assert following.strip().startswith('"""'), f"{name} has no docstring under it"
