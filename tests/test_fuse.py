"""Whatever breaks inside the hooks, the job's own calls go on."""

from pathlib import Path

import pytest
import torch
from torchvitals.hooks import attach
from torchvitals.hooks.evaluations import Evaluations
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
