"""A fit of Lightning with accumulation, clipping, a schedule, and a validation every epoch.

Any argument adds the callback of torchvitals."""

import json
import logging
import sys
import warnings

import lightning
import torch
from lightning.pytorch.utilities import grad_norm
from torch import nn

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
logged = {"loss": [], "gradient_norm_unclipped": [], "trainer_step": [], "epoch": [], "eval": []}


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        self.micro = []

    def training_step(self, batch, index):
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss)
        self.micro.append(loss.item())
        return loss

    def validation_step(self, batch, index):
        output = self.net(batch[0])
        self.log("val_loss", nn.functional.cross_entropy(output, batch[1]))
        self.log("val_accuracy", (output.argmax(1) == batch[1]).float().mean())

    def on_validation_end(self):
        if not self.trainer.sanity_checking:
            logged["eval"].append([self.trainer.global_step, float(self.trainer.callback_metrics["val_loss"])])

    def on_before_optimizer_step(self, optimizer):
        logged["gradient_norm_unclipped"].append(float(grad_norm(self, 2)["grad_2.0_norm_total"]))
        logged["loss"].append(sum(self.micro) / len(self.micro))
        logged["trainer_step"].append(self.trainer.global_step)
        logged["epoch"].append(self.trainer.current_epoch)
        self.micro.clear()

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), 0.01)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8)]


lightning.seed_everything(0, verbose=False)
inputs = torch.randn(320, 8)
labels = (inputs[:, :3] + 0.3 * torch.randn(320, 3)).argmax(1)
data = torch.utils.data.TensorDataset(inputs, labels)
train, validation = torch.utils.data.random_split(data, [256, 64])
callbacks = []
if sys.argv[1:]:
    from torchvitals.hooks.integrations.lightning import TorchvitalsCallback

    callbacks = [TorchvitalsCallback(overhead=1.0)]
trainer = lightning.Trainer(
    max_epochs=8,
    accelerator="cpu",
    devices=1,
    logger=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    enable_checkpointing=False,
    gradient_clip_val=0.5,
    accumulate_grad_batches=2,
    log_every_n_steps=5,
    callbacks=callbacks,
)
loader = torch.utils.data.DataLoader
trainer.fit(Classifier(), loader(train, 8, shuffle=True), loader(validation, 16))
with open("logged.json", "w") as file:
    json.dump(logged, file)
