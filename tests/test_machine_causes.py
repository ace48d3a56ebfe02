"""What the machine does to a job: the driver's words, and a processor that is too hot.

No GPU broke and no processor boiled for this: the messages are those of ``cudaGetErrorString``, as torch quotes them,
and the counters are files like the kernel's.
"""

import pytest
from torchvitals.agent.case import Case
from torchvitals.agent.causes.thermal_throttle import ThermalThrottle
from torchvitals.agent.history import History
from torchvitals.agent.offline import diagnose_directory
from torchvitals.detectors.detector import Finding
from torchvitals.hooks.throttling import Throttling
from torchvitals.signals.records import LAUNCHER_RANK, Event, Hello, Step
from torchvitals.signals.spool import SpoolWriter

TRAILER = "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stack may be incorrect."


def crashed(directory, message, rank=1):
    for each in range(2):
        hello = Hello(run="r", rank=each, world_size=2, pid=10 + each, host=f"node{each}", started=1.0)
        writer = SpoolWriter(directory, hello)
        for step in range(30):
            writer.write(Step(step, 10.0 + 0.1 * step, {"loss": 1.0}))
        frames = ["/job/train.py:40 step", "/lib/python3/site-packages/torch/_tensor.py:1 backward"]
        if each == rank:
            details = {"type": "AcceleratorError", "message": message + TRAILER, "frames": frames}
            writer.write(Event(13.1, 30, "exception", details))
        writer.write(Event(13.2, 30, "exit", {"code": int(each == rank)}))
        writer.close()
    return diagnose_directory(directory / "r").incidents


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: uncorrectable ECC error encountered",
        "CUDA error: uncorrectable NVLink error detected during the execution",
        "CUDA error: Invalid access of peer GPU memory over nvlink or a hardware error",
        "CUDA error: hardware stack error",
    ],
)
def test_what_the_driver_says_of_its_device_is_a_hardware_fault(tmp_path, message):
    (incident,) = crashed(tmp_path, message)

    assert (incident.kind, incident.cause, incident.rank, incident.first_step) == ("crash", "hardware_fault", 1, 30)
    assert "node1" in incident.explanation
    assert incident.confidence > 0.85


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: device-side assert triggered",
        "CUDA error: unspecified launch failure",
        "CUDA out of memory. Tried to allocate 2.00 GiB",
    ],
)
def test_what_code_does_to_a_device_is_an_exception(tmp_path, message):
    (incident,) = crashed(tmp_path, message)

    assert (incident.cause, incident.where) == ("exception", "train.py:40")


@pytest.mark.parametrize(("number", "cause"), [(11, "exception"), (6, "exception"), (9, "unknown")])
def test_a_signal_that_native_code_brings_upon_itself_is_of_the_code(tmp_path, number, cause):
    hello = Hello(run="r", rank=0, world_size=1, pid=10, started=1.0)
    writer = SpoolWriter(tmp_path, hello)
    for step in range(30):
        writer.write(Step(step, 10.0 + 0.1 * step, {"loss": 1.0}))
    launcher = SpoolWriter(tmp_path, Hello(run="r", rank=LAUNCHER_RANK, pid=9, role="launcher"))
    frames = ["/job/train.py:40 step", "/job/kernel.py:9 fuse"]
    launcher.write(Event(13.5, -1, "process_gone", {"rank": 0, "pid": 10, "oom_kills": 0, "frames": frames}))
    launcher.write(Event(14.0, -1, "command_exit", {"code": -number, "signal": number, "oom_kills": 0}))
    (incident,) = diagnose_directory(tmp_path / "r").incidents

    assert (incident.kind, incident.cause, incident.where) == ("crash", cause, "kernel.py:9")


def processor(path, package, milliseconds):
    for number in range(2):
        counter = path / f"cpu{number}" / "thermal_throttle" / "package_throttle_total_time_ms"
        counter.parent.mkdir(parents=True, exist_ok=True)
        counter.write_text(f"{milliseconds}\n")
        (path / f"cpu{number}" / "topology").mkdir(exist_ok=True)
        (path / f"cpu{number}" / "topology" / "physical_package_id").write_text(f"{package}\n")


def test_the_share_of_time_that_the_kernel_has_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: [0, 1])
    now = [100.0]
    processor(tmp_path, 0, 5000)
    throttling = Throttling(cpus=tmp_path, clock=lambda: now[0])

    now[0] += 0.5
    assert throttling.fresh() is None
    now[0] += 1.5
    processor(tmp_path, 0, 5500)
    assert throttling.fresh() == pytest.approx(0.25)
    now[0] += 2.0
    processor(tmp_path, 0, 0)  # the counter began anew
    assert throttling.fresh() == 0.0


def test_a_machine_without_counters_says_nothing(tmp_path):
    now = [0.0]
    throttling = Throttling(cpus=tmp_path, clock=lambda: now[0])
    now[0] = 10.0

    assert throttling.fresh() is None


def opinion(before, after, *, kind="slowdown", others=0.0):
    history = History()
    for rank in range(2):
        for step in range(60):
            share = (before if step < 30 else after) if rank == 1 else others
            history.add("throttled_ratio", step, share, rank=rank)
    finding = Finding(kind=kind, severity="warning", first_step=30, step=50, value=2.0, threshold=1.0, rank=1)
    return ThermalThrottle().weigh(Case(findings=[finding], history=history, facts={}, events=[], world_size=2))


@pytest.mark.parametrize(
    ("before", "after", "others", "kind", "speaks"),
    [
        (0.0, 0.4, 0.0, "slowdown", True),
        (0.01, 0.02, 0.0, "slowdown", False),  # more, and nothing that can be felt
        (0.3, 0.4, 0.0, "slowdown", False),  # it was as hot before
        (0.4, 0.4, 0.0, "straggler", True),  # from the first step on, and only there
        (0.4, 0.4, 0.4, "straggler", False),  # all are hot, and one is late
    ],
)
def test_heat_explains_what_is_new_or_of_one_rank(before, after, others, kind, speaks):
    assert (opinion(before, after, kind=kind, others=others) is not None) is speaks
