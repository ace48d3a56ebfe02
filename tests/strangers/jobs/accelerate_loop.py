"""A hand-written loop over what Accelerate prepared: accumulation, clipping, a warm-up schedule, gathered metrics."""

import json

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

accelerator = Accelerator(gradient_accumulation_steps=2, cpu=True)
set_seed(42)


class Classifier(nn.Module):
    """A bag of embedded words, as people classify sentences for a start."""

    def __init__(self):
        super().__init__()
        self.embeddings = nn.Embedding(50, 16)
        self.dense = nn.Linear(16, 32)
        self.dropout = nn.Dropout(0.1)
        self.out = nn.Linear(32, 3)

    def forward(self, input_ids, labels):
        hidden = self.dropout(torch.relu(self.dense(self.embeddings(input_ids).mean(1))))
        logits = self.out(hidden)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def dataset(count):
    words = torch.randint(0, 50, (count, 12))
    return TensorDataset(words, (words < 17).sum(1).clamp(2, 6).sub(2).div(2, rounding_mode="floor").clamp(max=2))


model = Classifier()
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 20))
train, test = DataLoader(dataset(1024), shuffle=True, batch_size=16), DataLoader(dataset(128), batch_size=32)
model, optimizer, train, test, scheduler = accelerator.prepare(model, optimizer, train, test, scheduler)

logged = {"loss": [], "gradient_norm_unclipped": [], "accuracy": []}
total = 0.0
for epoch in range(4):
    model.train()
    for input_ids, labels in train:
        with accelerator.accumulate(model):
            loss = model(input_ids=input_ids, labels=labels)["loss"]
            accelerator.backward(loss)
            total += loss.item() / 2
            if accelerator.sync_gradients:
                norm = accelerator.clip_grad_norm_(model.parameters(), 1.0)
                logged["gradient_norm_unclipped"].append(norm.item())
                logged["loss"].append(total)
                total = 0.0
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    model.eval()
    right = []
    for input_ids, labels in test:
        with torch.no_grad():
            logits = model(input_ids=input_ids, labels=labels)["logits"]
        predictions, references = accelerator.gather_for_metrics((logits.argmax(-1), labels))
        right.append((predictions == references).float())
    logged["accuracy"].append(torch.cat(right).mean().item())
    accelerator.print(f"epoch {epoch}: accuracy {logged['accuracy'][-1]:.3f}")
accelerator.wait_for_everyone()
with open(f"logged.{accelerator.process_index}.json", "w") as file:
    json.dump(logged, file)
accelerator.end_training()
