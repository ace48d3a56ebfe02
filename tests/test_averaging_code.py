"""Whether a job's own code averages weights: what shares nothing by intent is not told from a mistake otherwise."""

from pathlib import Path

import pytest
from torchvitals.hooks.averaging_code import NONE, PLAIN, POSSIBLE, averaging_in

PLAINLY = [
    "for p in net.parameters():\n    dist.all_reduce(p.data)\n    p.data /= world",
    "for name, value in net.state_dict().items():\n    dist.all_reduce(value, op=dist.ReduceOp.AVG)",
    "from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager",
    "def average_parameters(net):\n    flat = parameters_to_vector(net.parameters())\n    dist.all_reduce(flat)",
    "with LocalSGD(accelerator=accelerator, model=model, local_sgd_steps=8): pass",
    "class DiLoCoOuter: pass",
]
PERHAPS = [
    "for p in net.parameters():\n    dist.all_reduce(p.grad)",
    "dist.all_reduce(x)",
    "total = parameters_to_vector(net.parameters())\nx = total * 2\ndist.all_reduce(x)",
    "for p in net.parameters():\n    dist.broadcast(p.data, 0)",
    "flat = parameters_to_vector(net.parameters())\ndist.all_reduce(flat)",
    "dist.all_reduce(",  # not Python: who knows
]
NOT_AT_ALL = [
    "meter = AverageMeter('loss')\nema = AveragedModel(net)\nloss.backward()",
    "dist.all_reduce(loss, op=dist.ReduceOp.SUM)",
    "shown = loss.detach().clone()\ndist.all_reduce(shown, dist.ReduceOp.AVG)",
    "stats = torch.tensor([total_loss, correct])\ndist.all_reduce(stats)",
    "total = functools.reduce(add, sizes)\npicked = logits.gather(1, index)",
    "average_loss = total / steps\nmodel_scores = [1]\naverage = sum(model_scores)",
]


@pytest.mark.parametrize(
    ("code", "said"),
    [(c, PLAIN) for c in PLAINLY] + [(c, POSSIBLE) for c in PERHAPS] + [(c, NONE) for c in NOT_AT_ALL],
)
def test_what_code_says_of_averaging(tmp_path: Path, code: str, said: int) -> None:
    path = tmp_path / "train.py"
    path.write_text(code)

    assert averaging_in([path]) == said


def test_one_file_of_many_is_enough_and_one_that_is_gone_leaves_it_open(tmp_path: Path) -> None:
    plain, silent = tmp_path / "plain.py", tmp_path / "silent.py"
    plain.write_text(PLAINLY[0])
    silent.write_text("x = 1")

    assert averaging_in([silent, plain]) == PLAIN
    assert averaging_in([silent, tmp_path / "gone.py"]) == POSSIBLE
