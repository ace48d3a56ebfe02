"""CTC as in speech: in the batch of step 140 a target is longer than its input, which no path can spell."""

import sys

import torch
from torch import Tensor, nn

FRAMES, SIGNS = 20, 8
torch.manual_seed(int(sys.argv[2]))


class Recogniser(nn.Module):
    def __init__(self, family: str) -> None:
        super().__init__()
        recurrent = family == "gru"
        self.listen = nn.GRU(SIGNS, 32, batch_first=True) if recurrent else nn.Conv1d(SIGNS, 32, 3, padding=1)
        self.spell = nn.Linear(32, SIGNS)

    def forward(self, sound: Tensor) -> Tensor:
        heard = self.listen(sound)[0] if isinstance(self.listen, nn.GRU) else self.listen(sound.mT).relu().mT
        return self.spell(heard).log_softmax(-1).transpose(0, 1)


model = Recogniser(sys.argv[1])
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
criterion = nn.CTCLoss()
patterns = torch.randn(SIGNS, SIGNS)
for step in range(240):
    targets = torch.randint(1, SIGNS, (16, 5))
    sound = patterns[targets].repeat_interleave(4, 1) + 0.3 * torch.randn(16, FRAMES, SIGNS)
    lengths = torch.full((16,), FRAMES)
    if step == 140:
        lengths[7] = 3
    loss = criterion(model(sound), targets, lengths, torch.full((16,), 5))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
