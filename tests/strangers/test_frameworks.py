"""The numbers a framework logs about its own training are the numbers torchvitals records.

``transformers`` and ``lightning`` are not in the ``dev`` extra (500 MB for two tests); where they are absent the
tests are skipped with what to install.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from recorded import series

TRANSFORMERS = """
import json, torch, transformers
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 64
    def __getitem__(self, i):
        row = (torch.arange(12) * (1 + i % 3) + i) % 32
        return {"input_ids": row, "labels": row}

transformers.set_seed(0)
transformers.logging.set_verbosity_error()
model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=16, n_embd=16, n_layer=1, n_head=2,
    bos_token_id=0, eos_token_id=0))
arguments = TrainingArguments("out", per_device_train_batch_size=4, gradient_accumulation_steps=2, num_train_epochs=2,
    learning_rate=0.003, max_grad_norm=0.5, logging_steps=1, save_strategy="no", report_to=[], use_cpu=True,
    disable_tqdm=True)
trainer = Trainer(model, arguments, train_dataset=Rows())
trainer.train()
rows = [row for row in trainer.state.log_history if "grad_norm" in row]
json.dump({name: [float(row[name]) for row in rows] for name in ("loss", "grad_norm", "learning_rate")},
    open("logged.json", "w"))
"""

LIGHTNING = """
import json, logging, warnings
import lightning, torch
from lightning.pytorch.utilities import grad_norm
from torch import nn
warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
logged = {"loss": [], "grad_norm": []}

class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])
    def validation_step(self, batch, index):
        self.net(batch[0])
    def on_train_batch_end(self, outputs, batch, index):
        logged["loss"].append(float(outputs["loss"]))
    def on_before_optimizer_step(self, optimizer):
        logged["grad_norm"].append(float(grad_norm(self, 2)["grad_2.0_norm_total"]))
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 0.01)

lightning.seed_everything(0, verbose=False)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(64, 8), torch.randint(0, 3, (64,))), 8)
trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
    enable_model_summary=False, enable_checkpointing=False, gradient_clip_val=0.1)
trainer.fit(Classifier(), loader, loader)
json.dump(logged, open("logged.json", "w"))
"""


def needs(*packages: str) -> None:
    """Skip, with what to install, where a framework is absent; it is imported by the script alone."""
    if any(find_spec(package) is None for package in packages):
        pytest.skip(f"not in the dev extra: pip install {' '.join(packages)}")


def train(tmp_path: Path, script: str) -> dict[str, list[float]]:
    """Run ``script`` as ``torchvitals run`` would; what the framework logged."""
    (tmp_path / "script.py").write_text(script)
    spec = find_spec("torchvitals.hooks")
    assert spec is not None
    assert spec.submodule_search_locations
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(spec.submodule_search_locations[0]) / "zero_code"),
        "TORCHVITALS_DIR": str(tmp_path / "runs"),
        "TORCHVITALS_OVERHEAD": "1",  # every step is looked at closely, so that there is a norm of each
        "TORCHVITALS_RUN": "test",
    }
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "torchvitals" not in done.stderr
    logged: dict[str, list[float]] = json.loads((tmp_path / "logged.json").read_text())
    return logged


def recorded(tmp_path: Path, signal: str) -> list[float]:
    """The values of one signal, which must be there on every step."""
    found = series(tmp_path / "runs", signal)
    assert list(found) == list(range(len(found)))
    return list(found.values())


def test_hugging_face_trainer_logs_our_loss_norm_and_rate(tmp_path: Path) -> None:
    needs("transformers", "accelerate")
    logged = train(tmp_path, TRANSFORMERS)

    assert len(logged["loss"]) == 16
    assert recorded(tmp_path, "loss") == pytest.approx(logged["loss"], rel=1e-4)
    assert recorded(tmp_path, "gradient_norm_unclipped") == pytest.approx(logged["grad_norm"], rel=1e-4)
    limited = [min(norm, 0.5) for norm in logged["grad_norm"]]
    assert recorded(tmp_path, "gradient_norm") == pytest.approx(limited, rel=1e-4)
    assert recorded(tmp_path, "learning_rate") == pytest.approx(logged["learning_rate"], rel=1e-6)


def test_lightning_logs_our_loss_and_norm(tmp_path: Path) -> None:
    needs("lightning")
    logged = train(tmp_path, LIGHTNING)

    assert len(logged["loss"]) == 16
    assert recorded(tmp_path, "loss") == pytest.approx(logged["loss"], rel=1e-4)
    assert recorded(tmp_path, "gradient_norm_unclipped") == pytest.approx(logged["grad_norm"], rel=1e-4)
