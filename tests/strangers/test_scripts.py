"""``torchvitals run`` on scripts as people write them: their own numbers are recorded, and nothing healthy alarms."""

import pytest
from servers import free_port
from watched import need, program, python

pytestmark = pytest.mark.timeout(900)


def test_a_single_file_gpt_without_a_loader(watch):
    job = watch(*python("nano_gpt.py"))
    logged = job.logged()

    for signal in ("loss", "gradient_norm_unclipped", "learning_rate"):
        assert job.every(signal) == pytest.approx(logged[signal], rel=1e-5)
    limited = [min(norm, 1.0) for norm in logged["gradient_norm_unclipped"]]
    assert job.every("gradient_norm") == pytest.approx(limited, rel=1e-5)
    assert set(job.every("backward_passes")) == {4.0}
    job.assert_healthy()


def test_a_gan(watch):
    job = watch(*python("gan.py"))
    logged = job.logged()

    for network in (0, 1):
        assert job.every("loss", network) == pytest.approx(logged["loss"][network], rel=1e-5)
        assert job.every("gradient_norm", network) == pytest.approx(logged["gradient_norm"][network], rel=1e-5)
    job.assert_healthy()


def test_an_actor_and_a_critic(watch):
    job = watch(*python("actor_critic.py"))
    logged = job.logged()

    for network in (0, 1):
        for signal in ("loss", "gradient_norm_unclipped"):
            assert job.every(signal, network) == pytest.approx(logged[signal][network], rel=1e-5)
    job.assert_healthy()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_ddp_under_torchrun(watch, accumulate):
    command = program("torchrun", "--standalone", "--nproc-per-node", "2")
    job = watch(*command, *python("ddp_script.py", "--accumulate", str(accumulate))[1:])

    assert job.ranks == [0, 1]
    for rank in job.ranks:
        logged = job.logged(rank)
        for signal in ("loss", "gradient_norm_unclipped", "learning_rate"):
            assert job.every(signal, rank=rank) == pytest.approx(logged[signal], rel=1e-5)
    assert job.every("gradient_norm", rank=0) == job.every("gradient_norm", rank=1)
    job.assert_healthy()


@pytest.mark.parametrize("processes", [1, 2])
def test_accelerate_launch(watch, processes):
    need("accelerate")
    # Its --cpu starts one process, whatever --num_processes says; two of them are `multi_gpu` on a machine without any.
    where = ["--cpu"] if processes == 1 else ["--multi_gpu", "--main_process_port", str(free_port())]
    settings = ["--num_processes", str(processes), "--num_machines", "1", "--mixed_precision", "no"]
    command = program("accelerate", "launch", *where, *settings, "--dynamo_backend", "no")
    job = watch(*command, *python("accelerate_loop.py")[1:], ACCELERATE_USE_CPU="true")

    assert job.ranks == list(range(processes))
    for rank in job.ranks:
        for signal in ("loss", "gradient_norm_unclipped"):
            assert job.every(signal, rank=rank) == pytest.approx(job.logged(rank)[signal], rel=1e-5)
    assert set(job.every("backward_passes")) == {2.0}
    job.assert_healthy()
