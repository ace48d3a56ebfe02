"""Trained by the `Trainer` of Hugging Face, with a learning rate a thousand times too high."""

import sys
import tempfile

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
)

seed = int(sys.argv[2])
torch.manual_seed(seed)
words = torch.randint(3, 60, (1024, 12))


class Rows(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return len(words)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        labels = words[index] if sys.argv[1] == "gpt" else words[index].sum() % 2
        return {"input_ids": words[index], "labels": labels}


small = {"vocab_size": 64, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
model: nn.Module
if sys.argv[1] == "gpt":
    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=32, n_positions=16, **small))
else:
    model = BertForSequenceClassification(
        BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, **small)
    )
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        output_dir=folder, max_steps=150, per_device_train_batch_size=16, learning_rate=1.0, warmup_steps=0,
        lr_scheduler_type="constant", max_grad_norm=0.0, report_to=[], save_strategy="no", seed=seed, use_cpu=True,
        disable_tqdm=True,
    )  # fmt: skip
    Trainer(model=model, args=arguments, train_dataset=Rows()).train()
