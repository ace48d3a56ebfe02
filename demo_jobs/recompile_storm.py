"""A compiled reader of sentences that are padded to the longest of their batch: a new length is a new compilation."""

import torch
from torch import Tensor, nn

WORDS, WIDTH, STEPS = 50, 32, 60
torch.manual_seed(0)


class Reader(nn.Module):
    """Averages what it has read, after a layer of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH, padding_idx=0)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, sentences: Tensor) -> Tensor:
        seen = self.words(sentences)
        read = nn.functional.scaled_dot_product_attention(self.query(seen), self.key(seen), self.value(seen))
        scores: Tensor = self.head((seen + read).mean(1))
        return scores


def batch(longest: int) -> tuple[Tensor, Tensor]:
    """Sentences of as many words, and whether a certain word is among the first."""
    sentences = torch.randint(1, WORDS, (32, longest))
    return sentences, (sentences[:, 0] < WORDS // 2).long()


model = Reader()
# static on purpose: what brings about the storm. The backend without code generation keeps the demo short.
compiled = torch.compile(model, dynamic=False, backend="aot_eager")
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for step in range(STEPS):
    sentences, labels = batch(12 if step < 10 else 13 + step)
    loss = nn.functional.cross_entropy(compiled(sentences), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
