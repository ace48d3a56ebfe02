"""Every signal a job can send: its name, unit, axis, cadence, and what it tells.

The documentation table is generated from this list, and a test compares the names that the hooks
send and the detectors read with it. A name that is not here can still travel (``monitor.log(name=...)``):
it is stored and drawn, and no detector reads it.
"""

from typing import Literal, get_args

import msgspec

Axis = Literal["none", "parameter", "module", "feature", "class"]
Cadence = Literal["step", "sampled", "window", "beat"]


class Signal(msgspec.Struct, frozen=True):
    """One named measurement. ``unit`` is UCUM-like (``s``, ``By``, ``1``); ``axis`` says what its entries are."""

    name: str
    unit: str
    axis: Axis
    cadence: Cadence
    tells: str


# fmt: off
SIGNALS: tuple[Signal, ...] = (
    # every optimizer step
    Signal("loss", "1", "none", "step", "What the job minimises, unscaled; summed over one step's backward roots."),
    Signal(
        "validation_loss", "1", "none", "step",
        "Mean loss of the last evaluation: as logged by `monitor.log(validation_loss=...)`, as the model returned it, "
        "or as a variable of the job like `val_loss` holds it.",
    ),
    Signal("learning_rate", "1", "none", "step", "The largest learning rate of the optimizer's groups."),
    Signal("epoch", "{epoch}", "none", "step", "As the trainer counts; sent by the callbacks of hooks/integrations."),
    Signal("trainer_step", "{step}", "none", "step", "The step's number in the trainer's own log; sent by the same."),
    Signal("gradient_norm", "1", "none", "step", "Global 2-norm of the gradients the optimizer is about to apply."),
    Signal("gradient_norm_unclipped", "1", "none", "step", "The same before clipping; present when the job clips."),
    Signal(
        "gradient_norm_unclamped", "1", "none", "sampled",
        "The same before `clip_grad_value_`, or before clipping gradients that still carried the loss scale.",
    ),
    Signal("gradient_norm_shard", "1", "none", "step", "2-norm of this rank's part of the gradients (FSDP2)."),
    Signal("gradient_norm_unclipped_shard", "1", "none", "step", "The same before clipping, where torch keeps it."),
    Signal("tripwire_norm", "1", "none", "step", "2-norm of the gradients of a few input-most parameters."),
    Signal(
        "local_gradient", "1", "none", "step",
        "Sum of the trip-wire's gradients as this rank had them before ranks shared theirs; on a CPU only of a step "
        "whose shared gradient is not finite.",
    ),
    Signal("update_share", "1", "none", "sampled", "Largest change of a layer in one step as a share of its weights."),
    Signal(
        "epsilon_share", "1", "none", "sampled",
        "Share of `eps` in the denominator of an adaptive optimizer, in the layer of the largest gradients.",
    ),
    Signal("loss_scale", "1", "none", "step", "The AMP loss scale in force; 1 without a scaler."),
    Signal(
        "skipped_steps",
        "{step}",
        "none",
        "step",
        "1 on a step that the loss scaler skipped; such a step applies nothing.",
    ),
    Signal("backward_passes", "{pass}", "none", "step", "Backward passes since the last applied step (micro-batches)."),
    Signal("gradients_reset", "1", "none", "step", "1 if gradients were cleared since the last step, else 0."),
    Signal("step_seconds", "s", "none", "step", "Wall time from the end of the last step to the end of this one."),
    Signal("data_seconds", "s", "none", "step", "Part of it spent waiting for the data loader."),
    Signal("forward_seconds", "s", "none", "step", "Part of it spent in the root module's forward."),
    Signal("backward_seconds", "s", "none", "step", "Part of it spent in backward passes."),
    Signal("optimizer_seconds", "s", "none", "step", "Part of it spent in the optimizer's step."),
    Signal("mapped_bytes", "By", "none", "step", "Address space plus its writable part: asked for, not touched."),
    Signal("rss_bytes", "By", "none", "step", "Resident memory of the process."),
    Signal("worker_bytes", "By", "none", "step", "Private resident memory of the data loader's worker processes."),
    Signal("cuda_allocated_bytes", "By", "none", "step", "Device memory held by live tensors, after the step."),
    Signal("cuda_reserved_bytes", "By", "none", "step", "Device memory held by the caching allocator."),
    Signal("cuda_inactive_split_bytes", "By", "none", "step", "Reserved but unusable pieces: fragmentation."),
    Signal("cuda_alloc_retries", "{retry}", "none", "step", "Allocations that succeeded only after a cache flush."),
    Signal("memory_headroom_bytes", "By", "none", "step", "Left of the machine or the control group, once a second."),
    Signal("cuda_headroom_bytes", "By", "none", "step", "Left of the device: free, or reserved and not in use."),
    Signal("batch_items", "{item}", "none", "step", "First dimension of the root module's first tensor input."),
    Signal("batch_values", "{value}", "none", "step", "Elements of that input, in all forwards of the step together."),
    Signal("input_absmax", "1", "none", "step", "Largest absolute value in the root module's floating inputs."),
    Signal("input_nonfinite", "1", "none", "step", "1 if a floating input held NaN or Inf."),
    Signal("batch_digest", "1", "none", "step", "Digest of the first batch tensor, folded to 52 bits."),
    Signal("parameter_sum", "1", "none", "step", "Sum of the words of all parameters: equal replicas have equal sums."),
    Signal(
        "parameter_sum_found", "1", "none", "step",
        "The same before the step, of ranks that share no gradients and have talked since the last one (LocalSGD).",
    ),
    Signal("collectives", "{collective}", "none", "step", "Collectives from the first backward to the step."),
    Signal("arrival_lateness", "s", "none", "sampled", "How long after half of the ranks it came to a collective."),
    Signal(
        "collective_seconds", "s", "none", "sampled",
        "From when all ranks had come to the last collective of a step to when it was over on this one.",
    ),
    Signal(
        "trains_apart", "1", "none", "step",
        "1 if gradients were by intent not shared with all ranks of the wrapper: post-local SGD.",
    ),
    Signal(
        "averaging_in_code", "1", "none", "step",
        "Of a step that shared nothing: 2 if the job's own code averages weights between ranks, 1 if it may, 0 if not.",
    ),
    Signal(
        "no_sync_last", "1", "none", "step", "1 where the last backward pass of a shared step ran under no_sync."
    ),
    Signal("no_sync_passes", "{pass}", "none", "step", "Backward passes under the wrapper's no_sync (DDP)."),
    Signal("optimizer_extra_parameters", "{parameter}", "none", "step", "Optimizer parameters no live model owns."),
    Signal(
        "orphaned_parameters", "{parameter}", "none", "step",
        "Of those, how many no living module owns, where models train others that no optimizer holds.",
    ),
    Signal("neglected_parameters", "{parameter}", "none", "step", "Unfrozen or hidden in a list, and in no optimizer."),
    Signal("parameters_without_gradient", "{parameter}", "none", "step", "Trainable parameters whose grad is None."),
    Signal("parameters_not_optimized", "{parameter}", "none", "step", "Trainable parameters no optimizer holds."),
    Signal("gradients_lost", "1", "none", "step", "1 if gradients had come and were gone before the step."),
    Signal("weights_overwritten", "1", "none", "step", "Share of a few weights written to between two steps."),
    Signal("eval_mode_passes", "{pass}", "none", "step", "Most training forwards in a step in evaluation mode."),
    Signal("train_mode_evaluations", "{pass}", "none", "step", "Most in a row without gradients in training mode."),
    Signal("train_mode_items", "{item}", "none", "step", "Rows of the answers of these forwards."),
    Signal("live_tensors", "{tensor}", "none", "sampled", "Tensors alive in the process (when a leak is suspected)."),
    Signal("recompilations", "{compilation}", "none", "step", "Functions torch.compile compiled once more; if any."),
    Signal("recompile_limit_hits", "{function}", "none", "step", "Functions it gave up to compile: they run eagerly."),
    Signal("compile_seconds", "s", "none", "step", "Time the step waited for torch.compile, if it compiled."),
    Signal("machine_load", "{task}", "none", "step", "Load average of the last minute by core, once a second."),
    Signal("request_cpu_ratio", "1", "none", "step", "Processor time of a service over the time of its requests."),
    Signal("request_starved_ratio", "1", "none", "step", "Time that it waited for a core over the same time."),
    Signal("throttled_ratio", "1", "none", "step", "Share of time a CPU was held down by heat, once a second."),
    Signal("overhead_ratio", "1", "none", "step", "Measured cost of the hooks as a share of step time."),
    Signal("sampling_interval", "{step}", "none", "step", "Steps between sampled steps, as the budget has set it."),
    # sampled steps, one entry per parameter tensor
    Signal("parameter_cut", "1", "parameter", "sampled", "1 for the first ones, if cut off in called modules."),
    Signal("parameter_gradient_norm", "1", "parameter", "sampled", "2-norm of each gradient about to be applied."),
    Signal("parameter_weight_norm", "1", "parameter", "sampled", "2-norm of each parameter after the step."),
    Signal("parameter_update_norm", "1", "parameter", "sampled", "2-norm of the change the step made."),
    Signal("parameter_zero_rows", "1", "parameter", "sampled", "Share of output rows whose gradient is exactly zero."),
    Signal(
        "parameter_silent_rows",
        "1",
        "parameter",
        "sampled",
        "Share of output rows without gradient for improbably many samples in a row, given how often each had one.",
    ),
    Signal("parameter_rows", "{row}", "parameter", "sampled", "Output rows of each parameter."),
    Signal("parameter_nonfinite", "1", "parameter", "sampled", "1 where the gradient held NaN or Inf."),
    # sampled steps, one entry per module call
    Signal("module_output_absmax", "1", "module", "sampled", "Largest absolute output of each leaf module."),
    Signal("module_output_std", "1", "module", "sampled", "Standard deviation of each leaf module's output."),
    Signal("module_zero_share", "1", "module", "sampled", "Share of outputs that are exactly zero."),
    Signal(
        "module_silent_units",
        "1",
        "module",
        "sampled",
        "Share of a ReLU's units that were zero for whole batches, improbably many in a row given their past.",
    ),
    Signal("module_saturated_share", "1", "module", "sampled", "Share of tanh/sigmoid outputs in the flat region."),
    # now and then, a few channels of each BatchNorm layer
    Signal("buffer_mean", "1", "module", "sampled", "Running mean of a few channels of each BatchNorm layer."),
    Signal("buffer_variance", "1", "module", "sampled", "Running variance of the same channels."),
    Signal("buffer_layer", "1", "module", "sampled", "Number of the layer each of these channels belongs to."),
    # inference: windows of requests
    Signal("latency_seconds", "s", "none", "window", "Duration of each outermost forward of a serving model."),
    Signal("feature_mean", "1", "feature", "window", "Mean of each input feature or output class over a block."),
    Signal("feature_std", "1", "feature", "window", "Standard deviation of each over a block."),
    Signal("feature_missing", "1", "feature", "window", "Share of NaN in each over a block."),
    Signal("feature_zero", "1", "feature", "window", "Share of exact zeros in each over a block."),
    Signal(
        "feature_rows",
        "{row}",
        "feature",
        "window",
        "Rows behind the block's other figures; 0 where the entry was absent.",
    ),
    Signal(
        "feature_role",
        "1",
        "feature",
        "window",
        "0 for an input, 1 for an output, 2 for an output that is a share between 0 and 1.",
    ),
    Signal("feature_evaluated", "1", "feature", "window", "1 in a process that has trained: it may evaluate by hand."),
)
# fmt: on


BY_NAME: dict[str, Signal] = {signal.name: signal for signal in SIGNALS}


def axes() -> tuple[str, ...]:
    """The axes a signal can run along.

    >>> "parameter" in axes()
    True
    """
    return get_args(Axis)
