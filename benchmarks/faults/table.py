"""What must be found in the scripts beside this file, read off what each does wrong and not off what was once found."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent


class Fault(NamedTuple):
    """One script, the families it breaks, and the truth about it."""

    script: str
    families: tuple[str, ...]
    cause: str
    line: str = ""
    """Text of the line of the script that is to blame, which ``where`` must name."""
    where: str | Mapping[str, str] = ""
    """Or a part of the place, the same for all families or by family; without both there is no place to name."""
    onset: int = 0
    """Step (request) at which it begins."""
    after: int = 40
    """Steps later that its beginning may be dated: what is sampled or measured in windows."""
    before: int = 3
    ranks: int = 0
    argument: str = ""
    rank: int | None = None

    @property
    def name(self) -> str:
        return f"{self.script}:{self.argument}" if self.argument else self.script

    def place(self, family: str) -> str:
        """What ``where`` must contain; empty when there is no place."""
        if self.line:
            lines = (HERE / f"{self.script}.py").read_text(encoding="utf-8").splitlines()
            (number,) = (number for number, text in enumerate(lines, 1) if self.line in text)
            return f"{self.script}.py:{number}"
        return self.where if isinstance(self.where, str) else self.where.get(family, "")


RATE = "learning_rate_too_high"
DOMAIN = "numerical_domain_error"
LAST = {"mlp": "body.2", "cnn": "body.4"}
ENCODER = {"autoencoder": "encoder", "gru": "body", "mlp": "body"}
FAULTS: tuple[Fault, ...] = (
    Fault("rate_too_high", ("mlp", "gru", "cnn", "transformer"), RATE),
    Fault("rate_jump", ("transformer", "autoencoder", "lstm"), RATE, onset=180),
    Fault("rate_grows", ("mlp", "autoencoder", "cnn"), RATE, onset=250, before=250, after=170),
    Fault("gan_critic_rate", ("mlp", "cnn"), RATE, onset=200),
    Fault("rate_decays_per_batch", ("mlp", "cnn"), "learning_rate_zero", where="optimizer", onset=40, after=120),
    Fault("rate_zero", ("lstm", "transformer"), "learning_rate_zero", where="optimizer", onset=120),
    Fault("log_of_zero", ("mlp", "lstm"), DOMAIN, line="torch.log(shares)", onset=170, after=1),
    Fault("division_in_module", ("mlp", "transformer"), DOMAIN, where="front", onset=140, after=1),
    Fault("root_of_zero", ("mlp", "autoencoder"), DOMAIN, line="torch.sqrt(apart)", onset=150, after=1),
    Fault("masked_softmax", ("gru", "transformer"), DOMAIN, where="pool", onset=160, after=1),
    Fault("exponential_overflow", ("autoencoder", "mlp"), DOMAIN, line="torch.exp(spread)", onset=150, after=1),
    Fault("half_overflow", ("mlp", "cnn"), "fp16_overflow", where="gain", onset=150),
    Fault("nan_in_batch", ("mlp", "cnn"), "bad_batch", where="input", onset=165, after=1),
    Fault("nan_in_targets", ("autoencoder", "gru"), "bad_batch", where="target", onset=155, after=1),
    Fault("outlying_batch", ("autoencoder", "mlp"), "bad_batch", onset=175, after=2),
    Fault("raw_inputs", ("mlp", "autoencoder"), "missing_normalization", where="input"),
    Fault("shuffled_labels", ("mlp", "cnn"), "uninformative_labels"),
    Fault("wild_weights", ("mlp", "cnn", "transformer"), "bad_initialization"),
    Fault("dead_layer", ("mlp", "cnn"), "dying_relu", where=LAST, onset=200, after=60),
    Fault("deep_sigmoid", ("mlp", "autoencoder"), "saturating_activation", where="0"),
    Fault("zero_grad_missing", ("mlp", "gru"), "missing_zero_grad"),
    Fault("zero_grad_misplaced", ("mlp", "transformer"), "misplaced_zero_grad", where="optimizer"),
    Fault("step_missing", ("mlp", "lstm"), "missing_step", where="head"),
    Fault("stale_optimizer", ("mlp", "transformer"), "stale_optimizer_parameters", where="optimizer"),
    Fault("frozen_head", ("cnn", "lstm"), "frozen_parameters", where="head"),
    Fault("frozen_moves", ("cnn", "transformer"), "frozen_but_updated", where="body", onset=100),
    Fault("detached", ("autoencoder", "gru"), "frozen_parameters", where=ENCODER),
    Fault("rounded_away", ("mlp", "transformer"), "frozen_parameters"),
    Fault("constant_loss", ("mlp", "cnn"), "constant_loss"),
    Fault("double_softmax", ("mlp", "cnn"), "double_softmax", line="# FAULT"),
    Fault("eval_left_on", ("cnn", "transformer"), "train_mode_missing", onset=60),
    Fault("evaluated_in_train_mode", ("cnn", "transformer"), "eval_mode_missing", onset=60, after=130),
    Fault("dropout_in_evaluation", ("mlp", "transformer"), "eval_mode_missing", line="# FAULT", onset=100, after=220),
    Fault("weights_reset", ("mlp", "lstm"), "weights_overwritten", onset=250),
    Fault("losses_kept", ("mlp", "gru"), "retained_graph", line="# FAULT", after=200),
    Fault("cache_grows", ("mlp", "transformer"), "growing_cache", line="# FAULT", after=200),
    Fault("slow_loader", ("mlp", "cnn"), "slow_dataloader", onset=62),
    Fault("slow_logging", ("mlp", "gru"), "slow_dependency", onset=220),
    Fault("wrong_shape", ("mlp", "lstm"), "exception", where="tasks.py:", onset=130, after=1),
    Fault("overfits", ("mlp", "cnn"), "overfitting", after=250),
    Fault("cloned_workers", ("mlp", "cnn"), "duplicated_augmentation_seed", where="data loader"),
    Fault("unit_changed", ("mlp", "transformer"), "feature_shift", where=",3]", onset=600, before=70, after=70),
    Fault("input_lost", ("mlp", "lstm"), "missing_feature", where=",3]", onset=600, before=70, after=70),
    Fault("ranks", ("mlp", "gru"), "rank_local_update", ranks=2, argument="clipped", after=110, rank=0),
    Fault("ranks", ("mlp", "transformer"), "rank_local_update", ranks=2, argument="rate", onset=120, after=110),
    Fault("ranks", ("mlp", "gru"), "rank_local_update", ranks=2, argument="decay", after=8),
    Fault("ranks", ("mlp", "transformer"), "no_sync_left_on", ranks=2, argument="unshared", onset=120, after=110),
    Fault("ranks", ("mlp", "gru"), "unsynced_forward", ranks=2, argument="raw_module", onset=120, after=110),
    Fault("ranks", ("mlp", "gru"), "unsynced_forward", ranks=2, argument="cast", onset=120, after=110),
    Fault("ranks", ("mlp", "gru"), "corrupted_gradient", "", "head", ranks=2, argument="lost", onset=120, after=110),
    Fault("ranks", ("mlp", "gru"), "corrupted_gradient", "", "head", ranks=2, argument="flipped", onset=120, after=110),
    Fault("ranks", ("mlp", "gru"), "duplicated_augmentation_seed", ranks=2, argument="same_shard", after=110),
    Fault("recompiles", ("convolutional", "gated"), "dynamic_shapes", line="# FAULT", onset=30, argument="shapes"),
    Fault("recompiles", ("convolutional", "gated"), "changing_constant", line="# FAULT", argument="values"),
    Fault("momentum_of_one", ("tanh", "cnn"), RATE, after=200),
    Fault("isolated_node", ("mean", "attention"), DOMAIN, where="pass1", onset=130, after=1),
    Fault("variance_below_zero", ("dense", "convolutional"), DOMAIN, where="sample", after=380),
    Fault("temperature_runs_out", ("dense", "convolutional"), DOMAIN, line="# FAULT", onset=160, after=1),
    Fault("alignments_kept", ("gru", "lstm"), "retained_graph", line="# FAULT", after=200),
    Fault("averages_swapped_in", ("denoiser", "autoencoder"), "weights_overwritten", onset=250),
    Fault("ranking_log", ("factors", "tower"), DOMAIN, line="# FAULT", onset=150, after=1),
    Fault("targets_too_long", ("gru", "convolutional"), "bad_batch", onset=140, after=1),
    Fault("router_untrained", ("mlp", "transformer"), "frozen_parameters", where="router"),
    Fault("unknown_item", ("bag", "gru"), "exception", line="# FAULT", onset=120, after=1),
    Fault("returns_grow", ("rmsprop", "adam"), "missing_normalization", onset=120, after=120),
    Fault("half_loss", ("table", "gru"), "fp16_overflow", line="# FAULT", onset=140),
    Fault("trainer_rate", ("bert", "gpt"), RATE),
    Fault("lightning_uncleared", ("mlp", "autoencoder"), "missing_zero_grad"),
    Fault("sign_turned", ("mlp", "gru", "transformer"), "maximized_loss", argument="minus", where="sign_turned.py:"),
    Fault("sign_turned", ("cnn", "autoencoder"), "maximized_loss", argument="maximize", where="optimizer"),
    Fault("nothing_moves", ("mlp", "gru"), "excessive_clipping", argument="clip", where="optimizer"),
    Fault("nothing_moves", ("cnn", "autoencoder"), "excessive_epsilon", argument="epsilon", where="optimizer"),
    Fault("nothing_moves", ("mlp", "transformer"), "learning_rate_zero", argument="rate", where="optimizer"),
    Fault("weights_decay", ("mlp", "transformer", "cnn"), "excessive_weight_decay", where="optimizer"),
    Fault("first_batch_only", ("mlp", "gru", "cnn"), "repeated_batch", line="# FAULT"),
    Fault("targets_outside", ("tagger", "segmenter"), "invalid_targets", line="# FAULT"),
    Fault("targets_across", ("regressor",), "broadcast_targets", line="# FAULT"),
    Fault("targets_across", ("critic",), "broadcast_targets", line="# CRITIC"),
    Fault("worker_keeps_items", ("mlp", "cnn"), "growing_cache", line="# FAULT", argument="set", after=200),
    Fault("worker_keeps_items", ("mlp", "gru"), "growing_cache", line="# STREAM", argument="stream", after=200),
    Fault("data_changes", ("mlp", "cnn"), "uninformative_labels", "", "target", 300, argument="labels"),
    Fault("data_changes", ("lstm", "cnn"), "bad_batch", "", "input", 300, argument="empty"),
    Fault("data_changes", ("autoencoder", "gru"), "bad_batch", "", "target", 300, argument="unit"),
    Fault("feeder_dies", ("mlp", "lstm"), "exception", line="# FAULT", onset=138, after=3),
    Fault("trainers_apart", ("mlp", "lstm"), "exception", where="tasks.py:", onset=130, after=1),
    Fault("nothing_moves", ("mlp", "lstm"), "excessive_clipping", argument="values", where="optimizer"),
    Fault("sign_turned", ("mlp", "transformer"), "maximized_loss", argument="smoothed", where="sign_turned.py:"),
    Fault("resumed_without_moments", ("mlp", "transformer"), "missing_optimizer_state", where="optimizer", onset=150),
    Fault("ranks", ("mlp", "gru"), "rank_local_update", ranks=2, argument="scales", after=110),
    Fault("ranks", ("mlp", "gru"), "corrupted_gradient", ranks=2, argument="reductions", onset=120, after=110),
    Fault(
        "ranks", ("mlp", "gru"), "collective_mismatch", line="# SIZES", ranks=2, argument="sizes", onset=120, after=1
    ),
    Fault("ranks", ("mlp", "gru"), "no_sync_left_on", ranks=2, argument="last_unshared", onset=120, after=110),
    Fault("rate_below_zero", ("mlp", "lstm"), "learning_rate_too_high", where="optimizer", onset=240),
    Fault("frozen_in_train", ("mlp", "transformer"), "frozen_but_updated", where="body"),
    Fault("spectral_norm_first", ("mlp", "cnn"), "unconverged_spectral_norm", where="weight", argument="hook"),
    Fault("spectral_norm_first", ("cnn", "mlp"), "unconverged_spectral_norm", where="weight", argument="parametrized"),
    Fault("drawn_for_ancestors", ("mlp", "transformer"), "repeated_initialization", line="# FAULT"),
    Fault("loaded_then_drawn", ("mlp", "transformer"), "weights_overwritten", where="parameters"),
    Fault("checkpoint_prefixed", ("transformer", "gru"), "checkpoint_not_loaded", line="# FAULT"),
    Fault("checkpoint_damaged", ("mlp", "gru"), "corrupted_checkpoint", where="head.weight"),
)


def cases(only: str, seeds: range) -> Iterator[tuple[Fault, str, int]]:
    """Every (fault, family, seed) whose name ``fault/family/seed`` contains one of the comma-separated ``only``."""
    words = [word for word in only.split(",") if word]
    for seed in seeds:
        for fault in FAULTS:
            for family in fault.families:
                name = f"{fault.name}/{family}/{seed}"
                if not words or any(word in name for word in words):
                    yield fault, family, seed
