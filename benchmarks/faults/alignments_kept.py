"""Sequence to sequence with teacher forcing; the alignments of every step are kept for a plot, with their graphs."""

import random
import sys

import torch
from torch import Tensor, nn

WORDS, WIDTH = 40, 48
torch.manual_seed(int(sys.argv[2]))
random.seed(int(sys.argv[2]))


class Translator(nn.Module):
    def __init__(self, cells: type[nn.RNNBase], cell: type[nn.RNNCellBase]) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.encoder, self.decoder = cells(WIDTH, WIDTH, batch_first=True), cell(WIDTH, WIDTH)
        self.answer = nn.Linear(2 * WIDTH, WORDS)

    def forward(self, source: Tensor, target: Tensor, teacher: float) -> tuple[Tensor, Tensor]:
        memory, _ = self.encoder(self.words(source))
        state = (memory[:, -1], memory[:, -1]) if isinstance(self.decoder, nn.LSTMCell) else memory[:, -1]
        word, answers, alignments = torch.zeros_like(target[:, 0]), [], []
        for position in range(target.shape[1]):
            state = self.decoder(self.words(word), state)
            hidden = state[0] if isinstance(state, tuple) else state
            weights = torch.softmax((memory @ hidden[:, :, None])[..., 0], -1)
            answers.append(self.answer(torch.cat([hidden, (weights[..., None] * memory).sum(1)], -1)))
            alignments.append(weights)
            word = target[:, position] if random.random() < teacher else answers[-1].argmax(-1)
        return torch.stack(answers, 1), torch.stack(alignments, 1)


kinds = {"gru": (nn.GRU, nn.GRUCell), "lstm": (nn.LSTM, nn.LSTMCell)}
model = Translator(*kinds[sys.argv[1]])
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
seen = []
for step in range(400):
    source = torch.randint(1, WORDS, (32, 9))
    target = source.flip(1)
    answers, alignments = model(source, target, teacher=max(0.3, 1 - step / 300))
    loss = nn.functional.cross_entropy(answers.flatten(0, 1), target.flatten())
    optimizer.zero_grad()
    loss.backward(retain_graph=True)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    seen.append(alignments)  # FAULT
