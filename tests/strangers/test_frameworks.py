"""The numbers a framework logs of its training are recorded: by ``torchvitals run``, by the callback, or by both."""

import subprocess
import sys

import pytest
from watched import Watched, need, python

pytestmark = pytest.mark.timeout(900)
WAYS = pytest.mark.parametrize(("zero_code", "callback"), [(True, False), (False, True), (True, True)])


def start(watch, job: str, *, zero_code: bool, callback: bool) -> Watched:
    return watch(*python(job, *(["with the callback"] if callback else [])), zero_code=zero_code)


@WAYS
def test_hugging_face_trainer(watch, zero_code, callback):
    need("transformers", "accelerate")
    job = start(watch, "hf_trainer.py", zero_code=zero_code, callback=callback)
    logged = job.logged()

    for signal in ("loss", "gradient_norm_unclipped", "learning_rate"):
        assert job.every(signal) == pytest.approx(logged[signal], rel=1e-5)
    limited = [min(norm, 0.5) for norm in logged["gradient_norm_unclipped"]]
    assert job.every("gradient_norm") == pytest.approx(limited, rel=1e-5)
    assert set(job.every("backward_passes")) == {2.0}
    job.assert_healthy()
    if callback:
        assert job.every("trainer_step") == logged["trainer_step"]
        assert job.every("epoch") == pytest.approx([0.0, *logged["epoch"][:-1]])
        assert evaluations(job, "validation_loss") == pytest.approx(dict(logged["eval"]))
        assert job.series("eval_loss") == job.series("validation_loss")
        assert job.series("trainer_loss")[1] == pytest.approx(logged["loss"][0])
    else:
        assert job.series("trainer_step") == {}
        evaluated = dict(logged["eval"])  # the model gives its loss back when it is evaluated: that can be seen
        for step, value in job.series("validation_loss").items():
            assert value == pytest.approx(evaluated[step], rel=1e-4)


@WAYS
def test_lightning(watch, zero_code, callback):
    need("lightning")
    job = start(watch, "lightning_fit.py", zero_code=zero_code, callback=callback)
    logged = job.logged()

    for signal in ("loss", "gradient_norm_unclipped"):
        assert job.every(signal) == pytest.approx(logged[signal], rel=1e-5)
    assert set(job.every("backward_passes")) == {2.0}
    assert set(job.every("batch_items")) == {16.0}
    job.assert_healthy()
    if callback:
        for signal in ("trainer_step", "epoch"):
            assert job.every(signal) == logged[signal]
        assert evaluations(job, "validation_loss") == pytest.approx(dict(logged["eval"]))
        assert len(job.series("val_accuracy")) == len(logged["eval"])
        assert set(job.series("train_loss")) >= set(range(5, len(logged["loss"]), 5))
    else:
        assert job.series("trainer_step") == {}
        evaluated = dict(logged["eval"])  # heard at torch's loss functions; behind the last one there is no step
        assert job.series("validation_loss") == pytest.approx(dict(list(evaluated.items())[:-1]), rel=1e-4)


def evaluations(job: Watched, signal: str) -> dict[int, float]:
    """Steps that had been taken → what was measured then.

    It is written with the step that follows, whose number that is; where none follows, with the last one.
    """
    last = len(job.every("loss")) - 1
    return {step + (step == last): value for step, value in job.series(signal).items()}


@pytest.mark.parametrize(
    ("adapter", "framework", "told"),
    [
        ("transformers", "transformers", "pip install 'transformers[torch]'"),
        ("lightning", "lightning", "pip install lightning"),
    ],
)
def test_a_missing_framework_is_told_with_what_to_type(adapter, framework, told):
    script = f"import sys; sys.modules['{framework}'] = None; import torchvitals.hooks.integrations.{adapter}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.returncode == 1
    assert told in done.stderr.splitlines()[-1]


def test_no_adapter_is_loaded_that_nobody_asked_for():
    script = "import sys, torchvitals.hooks.unattended; sys.exit('torchvitals.hooks.integrations' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
