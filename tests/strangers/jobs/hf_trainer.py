"""The Trainer of Hugging Face on a GPT-2 made from a configuration, with accumulation, clipping and evaluation.

Any argument adds the callback of torchvitals."""

import json
import sys

import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments


class Rows(torch.utils.data.Dataset):
    def __init__(self, first, count):
        self.first, self.count = first, count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        i += self.first
        row = (torch.arange(12) * (1 + i % 3) + i) % 32
        return {"input_ids": row, "labels": row}


transformers.set_seed(0)
transformers.logging.set_verbosity_error()
config = GPT2Config(vocab_size=32, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
arguments = TrainingArguments(
    "out",
    per_device_train_batch_size=4,
    gradient_accumulation_steps=2,
    num_train_epochs=6,
    learning_rate=0.003,
    max_grad_norm=0.5,
    logging_steps=1,
    eval_strategy="epoch",
    save_strategy="no",
    report_to=[],
    use_cpu=True,
    disable_tqdm=True,
)
callbacks = []
if sys.argv[1:]:
    from torchvitals.hooks.integrations.transformers import TorchvitalsCallback

    callbacks = [TorchvitalsCallback(overhead=1.0)]
trainer = Trainer(
    GPT2LMHeadModel(config),
    arguments,
    train_dataset=Rows(0, 160),
    eval_dataset=Rows(160, 32),
    callbacks=callbacks,
)
trainer.train()
rows = [row for row in trainer.state.log_history if "grad_norm" in row]
evaluations = [row for row in trainer.state.log_history if "eval_loss" in row]
logged = {
    "loss": [float(row["loss"]) for row in rows],
    "gradient_norm_unclipped": [float(row["grad_norm"]) for row in rows],
    "learning_rate": [float(row["learning_rate"]) for row in rows],
    "trainer_step": [row["step"] for row in rows],
    "epoch": [float(row["epoch"]) for row in rows],
    "eval": [[row["step"], float(row["eval_loss"])] for row in evaluations],
}
with open("logged.json", "w") as file:
    json.dump(logged, file)
