"""Whatever breaks inside the hooks, the job's own calls go on."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torchvitals.hooks import attach
from torchvitals.hooks.evaluations import Evaluations
from torchvitals.hooks.fuse import Fuse
from torchvitals.hooks.serving import Service


@pytest.mark.parametrize(("owner", "method"), [(Service, "__init__"), (Service, "request"), (Evaluations, "answered")])
def test_a_service_answers_when_the_record_of_its_requests_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, owner: type, method: str
) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(owner, method, breaks)
    model = torch.nn.Linear(2, 1).eval()
    with attach(model, directory=tmp_path), torch.inference_mode():
        answers = [model(torch.ones(1, 2)) for _ in range(3)]

    assert all(torch.equal(answer, answers[0]) for answer in answers)
    assert sum("planted" in record.getMessage() for record in caplog.records) == 1


def test_a_shortcut_that_fails_is_taken_no_more_and_the_call_is_made_once():
    reported, calls = [], []

    def fails(_args, _kwargs):
        raise ZeroDivisionError

    def tapped(value):
        calls.append(value)
        return value

    tapped.taps = SimpleNamespace(removed=False)
    passed = Fuse(lambda probe, error: reported.append((probe, type(error)))).shortcut("loss", fails)(
        calls.append, tapped
    )

    assert [passed(1), passed(2)] == [1, 2]
    assert calls == [1, 2]
    assert reported == [("loss", ZeroDivisionError)]


def test_a_shortcut_that_was_enough_calls_the_original_alone():
    calls = []
    tapped = SimpleNamespace(taps=SimpleNamespace(removed=False))  # not to be called

    Fuse(lambda *_: None).shortcut("loss", lambda args, _kwargs: args == (3,))(calls.append, tapped)(3)

    assert calls == [3]
