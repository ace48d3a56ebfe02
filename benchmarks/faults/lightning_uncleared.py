"""A LightningModule that optimizes by hand, and never clears its gradients."""

import sys
import tempfile

import lightning
import torch
from tasks import make
from torch import Tensor


class Lit(lightning.LightningModule):
    def __init__(self, family: str, seed: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.task = make(family, seed)
        self.net = self.task.model

    def training_step(self, batch: list[Tensor], _index: int) -> None:
        inputs, targets = batch
        loss = self.task.loss(self.net(inputs), targets)
        self.manual_backward(loss)
        self.optimizers().step()
        self.log("train_loss", loss)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.net.parameters(), lr=0.02)


job = Lit(sys.argv[1], int(sys.argv[2]))
rows = torch.utils.data.TensorDataset(job.task.inputs, job.task.targets)
with tempfile.TemporaryDirectory() as folder:
    trainer = lightning.Trainer(
        max_epochs=4, default_root_dir=folder, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(job, torch.utils.data.DataLoader(rows, batch_size=32, shuffle=True))
