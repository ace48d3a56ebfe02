"""A compiled model that is compiled again and again: for every new length, or for every value of a counter it reads."""

import sys

import torch
from torch import Tensor, nn

torch.manual_seed(int(sys.argv[2]))
WORDS, WIDTH = 40, 24
lengths_change = sys.argv[3] == "shapes"


class Reader(nn.Module):
    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.mixer, self.head = mixer, nn.Linear(WIDTH, 3)
        self.seen = 0

    def forward(self, sentences: Tensor) -> Tensor:  # FAULT
        read = self.words(sentences)
        read = read + self.mixer(read.transpose(1, 2)).transpose(1, 2)
        if lengths_change:
            return self.head(read.mean(1))
        self.seen += 1
        return self.head(read.mean(1)) * min(1.0, 0.5 + self.seen / 1000)


mixers: dict[str, nn.Module] = {
    "convolutional": nn.Conv1d(WIDTH, WIDTH, 3, padding=1),
    "gated": nn.Sequential(nn.Conv1d(WIDTH, 2 * WIDTH, 1), nn.GLU(1)),
}
model = Reader(mixers[sys.argv[1]])
compiled = torch.compile(model, dynamic=False if lengths_change else None, backend="aot_eager")
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
for step in range(120):
    sentences = torch.randint(0, WORDS, (24, 10 if step < 30 or not lengths_change else 11 + step % 25))
    loss = nn.functional.cross_entropy(compiled(sentences), sentences[:, 0] % 3)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
