"""A service that grades wines; after a while the laboratory sends one figure in another unit.

The model is linear discriminant analysis as a small module, computed in closed form at start-up from the wine
data that come with scikit-learn. From half of the requests on, proline arrives in g/L instead of mg/L.

Must be found: ``drift``, cause ``feature_shift``, in column 12 of the input. Nothing else.
"""

import argparse

import torch
from sklearn.datasets import load_wine
from torch import Tensor, nn

PROLINE = 12
ITEMS = 8


class WineGrader(nn.Module):
    """Thirteen chemical figures into the log-odds of three cultivars."""

    centre: Tensor
    scale: Tensor

    def __init__(self, figures: Tensor, cultivars: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", figures.mean(0))
        self.register_buffer("scale", figures.std(0))
        self.score = nn.Linear(figures.shape[1], 3)
        self._solve((figures - self.centre) / self.scale, cultivars)

    def _solve(self, figures: Tensor, cultivars: Tensor) -> None:
        """Gaussian classes with a common covariance: weights and biases in closed form."""
        means = torch.stack([figures[cultivars == k].mean(0) for k in range(3)])
        residual = figures - means[cultivars]
        precision = torch.linalg.inv(residual.T @ residual / len(figures) + 0.05 * torch.eye(figures.shape[1]))
        with torch.no_grad():
            self.score.weight.copy_(means @ precision)
            self.score.bias.copy_(-0.5 * (means @ precision * means).sum(1))

    def forward(self, figures: Tensor) -> Tensor:
        log_odds: Tensor = self.score((figures - self.centre) / self.scale)
        return log_odds


def requests(figures: Tensor, count: int, generator: torch.Generator) -> list[Tensor]:
    """What the laboratory measures: wines like the known ones, with its own measuring error."""
    spread = figures.std(0)
    rows = torch.randint(0, len(figures), (count, ITEMS), generator=generator)
    noise = torch.randn((count, ITEMS, figures.shape[1]), generator=generator)
    return list(figures[rows] + 0.1 * spread * noise)


def main() -> None:
    """Answer the requests one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_wine()
    figures = torch.tensor(data.data, dtype=torch.float32)
    model = WineGrader(figures, torch.tensor(data.target)).eval()
    generator = torch.Generator().manual_seed(options.seed)
    graded = torch.zeros(3, dtype=torch.long)
    with torch.inference_mode():
        for number, wines in enumerate(requests(figures, options.requests, generator)):
            if number >= options.requests // 2:
                wines[:, PROLINE] /= 1000  # the new laboratory system reports g/L
            graded += model(wines).argmax(1).bincount(minlength=3)
    print(f"graded {int(graded.sum())} wines: {graded.tolist()}")


if __name__ == "__main__":
    main()
