"""What remembering a forward costs: ``python -m benchmarks.replay_cost``, microseconds per forward."""

import timeit

import torch
from torch import nn
from torchvitals.hooks.replay import Replay

FORWARDS = 5_000
REPEATS = 5


def main() -> None:
    """Time ``remember`` and ``remember_output`` on one input and one output, and the calls they consist of."""
    torch.set_num_threads(1)
    model = nn.Linear(8, 8)
    x = torch.randn(4, 8)
    replay = Replay(model)
    outputs = [model(x) for _ in range(FORWARDS)]

    def remember() -> None:
        for _ in range(FORWARDS):
            replay.remember(model, (x,), {})

    def remember_output() -> None:
        for output in outputs:
            replay.remember_output(output)

    for action in (remember, remember_output):
        best = min(timeit.repeat(action, number=1, repeat=REPEATS)) / FORWARDS
        print(f"{action.__name__}: {best * 1e6:.1f} us")


if __name__ == "__main__":
    main()
