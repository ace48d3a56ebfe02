"""What ran, in a few lines: model, optimizer, data, seed, versions, switches, code; as far as the job told."""

from collections.abc import Iterator, Mapping
from typing import Any

from torchvitals.agent.engine import Engine

MOST_FILES = 6
"""Files of the job named at most; the rest is counted."""


def what_ran(engine: Engine) -> list[tuple[str, str]]:
    """Headings and sentences; empty for a run that told nothing of itself."""
    if not engine.crews:
        return []
    facts: dict[str, Any] = {}
    for _, event in engine.events(engine.newest):
        if event.kind == "facts":
            facts.update(event.details)
    return list(_lines(facts))


def _lines(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for model in facts.get("models", []):
        frozen = f", {model['frozen']:,} of them frozen" if model.get("frozen") else ""
        compiled = ", compiled" if model.get("compiled") else ""
        yield (
            "model",
            f"{model.get('name')}: {model.get('parameters', 0):,} parameters{frozen}, {model.get('dtype')}{compiled}",
        )
    for optimizer in facts.get("optimizers", []):
        settings = ", ".join(f"{k} {v}" for k, v in optimizer.get("groups", [{}])[0].items() if v not in (None, False))
        yield "optimizer", f"{optimizer.get('class')}: {settings}"
    if loader := facts.get("loader"):
        yield "data", f"{loader.get('batch_size')} per batch, {loader.get('workers')} workers, {loader.get('sampler')}"
    for key, heading in _PLAIN.items():
        if facts.get(key) not in (None, False, ""):
            yield heading, str(facts[key])
    if seeds := facts.get("seeds"):
        yield "seed", _pairs(seeds)
    if versions := facts.get("versions"):
        yield "versions", _pairs(versions)
    if flags := facts.get("flags"):
        yield "switches", _pairs(flags)
    if code := facts.get("code"):
        yield "code", _code(code)


_PLAIN = {
    "distributed": "ranks", "scheduler": "schedule", "autocast": "autocast", "scaler": "loss scaler",
    "clips": "clips gradients to", "guard": "guard",
}  # fmt: skip


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _code(code: Mapping[str, Any]) -> str:
    files = list(code.get("files", {}))
    more = f" and {len(files) - MOST_FILES} more" if len(files) > MOST_FILES else ""
    commit = f", commit {code['commit']}" if code.get("commit") else ""
    return f"{', '.join(files[:MOST_FILES]) or code.get('script', '')}{more}{commit}"
