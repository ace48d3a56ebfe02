"""Names that are private to torch: each may be missing, and then less is seen, but nothing breaks."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from compatibility.toys import batch, classifier
from compatibility.trial import Trial, Watch
from compatibility.truth import Truth, gradient_norm, gradient_norms
from recorded import events
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, dataloader
from torchvitals.hooks import compiled_gradients, differentiation, digests, norms, profiles, tracing, weight_sums

HOOKS = Path(__file__).parent.parent.parent / "hooks"


class Missing(NamedTuple):
    """A torch without one private name."""

    remove: Callable[[pytest.MonkeyPatch], None]
    lost: tuple[str, ...] = ()
    """Signals that are gone with it."""
    said: dict[str, str] = {}  # noqa: RUF012 (a constant)
    """What is said not to be seen."""


def without(owner: Any, name: str) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.delattr(owner, name)


def unprobed(owner: Any, name: str, *others: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """Where the probe ran at import, or torch itself needs the name: what the probe found is nothing."""

    def remove(patch: pytest.MonkeyPatch) -> None:
        for each in (owner, *others):
            patch.setattr(each, name, None)

    return remove


CLIPPING = {"gradient_norm_unclipped": "this torch has no _get_total_norm and _clip_grads_with_norm_"}

PRIVATE = {
    "_BaseDataLoaderIter": Missing(without(dataloader, "_BaseDataLoaderIter"), ("data_seconds",)),
    "_clip_grads_with_norm_": Missing(
        lambda patch: rename(patch, "_clip_grads_with_norm_"), ("gradient_norm_unclipped",), CLIPPING
    ),
    "_current_autograd_node": Missing(without(torch._C, "_current_autograd_node")),
    "_current_graph_task_id": Missing(without(torch._C, "_current_graph_task_id")),
    "_engine_run_backward": Missing(lambda patch: patch.setattr(differentiation, "ENGINE", "_is_gone")),
    "_flatten_dense_tensors": Missing(unprobed(digests, "_flatten")),
    "_foreach_norm": Missing(unprobed(norms, "_foreach_norm", weight_sums)),
    "_foreach_sub_": Missing(unprobed(profiles, "_foreach_sub")),
    "_dynamo": Missing(lambda patch: patch.setattr(tracing, "callback", tracing._no_callback)),
    "_functorch": Missing(lambda patch: (unprobed(tracing, "_transform")(patch), without(torch, "_functorch")(patch))),
    "_get_sequence_nr": Missing(without(torch.autograd, "_get_sequence_nr")),
    "_get_total_norm": Missing(lambda patch: rename(patch, "_get_total_norm"), ("gradient_norm_unclipped",), CLIPPING),
    "_len_torch_dispatch_stack": Missing(unprobed(tracing, "_modes")),
}
"""Private name → how a torch without it behaves."""


def rename(patch: pytest.MonkeyPatch, name: str) -> None:
    """``clip_grad_norm_`` itself needs the function: it keeps it under another name."""
    from torch.nn.utils import clip_grad

    function, source = getattr(clip_grad, name), clip_grad.clip_grad_norm_.__wrapped__
    code = source.__code__
    names = tuple(f"renamed{each}" if each == name else each for each in code.co_names)
    patch.setattr(clip_grad, f"renamed{name}", function, raising=False)
    patch.setattr(source, "__code__", code.replace(co_names=names))
    patch.delattr(clip_grad, name)


@pytest.mark.parametrize("name", PRIVATE)
def test_a_torch_without_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = PRIVATE[name]
    missing.remove(monkeypatch)
    trial = Trial(tmp_path / "runs", (), {})

    def job(watch: Watch, truth: Truth) -> object:
        model = classifier()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        loader = DataLoader(TensorDataset(*batch(40)), 8)
        with watch(model, optimizer):
            for step, (x, y) in enumerate(loader):
                loss = nn.functional.cross_entropy(model(x), y)
                if step == 4:
                    loss = (loss - loss.detach() - 1.0).log()
                optimizer.zero_grad()
                loss.backward()
                truth.note(step, loss=loss, gradient_norm_unclipped=gradient_norm(model.parameters()))
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                if step < 4:
                    truth.note(step, gradient_norm=gradient_norm(model.parameters()), batch_items=8)
                    truth.note_each(step, parameter_gradient_norm=gradient_norms(model.parameters()))
                optimizer.step()
        return model, optimizer

    truth = trial.twice(job)
    told = trial.said()

    for signal in missing.lost:
        truth.scalars.pop((0, signal), None)
    for series in truth.scalars.values():
        series.pop(4, None)  # from here on it is not a number
    recorded_to(trial, truth)
    assert told == missing.said
    assert len(events(trial.directory, "origin")) == 1


def recorded_to(trial: Trial, truth: Truth) -> None:
    """Compare the first four steps."""
    from recorded import profiles as profiles_of
    from recorded import series as series_of

    for (_, signal), expected in truth.scalars.items():
        found = {step: value for step, value in series_of(trial.directory, signal).items() if step < 4}
        assert found == pytest.approx(expected, rel=1e-5)
    for (_, signal), expected in truth.profiles.items():
        found = {step: values for step, values in profiles_of(trial.directory, signal).items() if step < 4}
        assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert not events(trial.directory, "fuse")


ELSEWHERE = {
    "_dump_fr_trace_json": "tests/test_collectives.py",
    "_get_sequence_number_for_group": "tests/test_collectives.py",
    "_world": "tests/test_collectives.py",
}
"""Names whose absence another file tests."""

STEADY = {
    "_C": "the extension module itself; what is in it is listed by its own name",
    "_InfiniteConstantSampler": "compared with as a text; another name reads as a stored data set",
    "_c10d_functional": "compared with as a text: the name space of collectives among the operators",
    "_c10d_functional_autograd": "the same",
    "_call_impl": "compared with as a text, to recognise how Module.compile calls torch.compile",
    "_compiled_call_impl": "asked for with getattr; without it no module was compiled in place",
    "_fsdp_param_group": "asked for with getattr; whose gradient broke first under FSDP2 is then not known",
    "_get_fsdp_state": "the same",
    "_unsharded_param": "the same",
    "_forward_cls": "asked for with getattr; the gradient of what is compiled is then read at each step",
    "_lazy_backward_info": "the same",
    "_get_num_nonjoined_procs": "tapped where it is found; without it a rank that has joined is compared as before",
    "_index_sampler": "asked for with getattr; facts then lack the batch size",
    "_num_workers": "asked for with getattr; facts then say 0",
    "_num_yielded": "asked for with getattr; the first batch of an epoch then counts as any other",
    "_orig_mod": "part of the names in every stored state of a compiled model",
    "_scale": "asked for with getattr; the loss scale is then not told",
    "_schema": "of an operator, as the dispatcher's documentation uses it",
    "_script": "torch.jit._script.RecursiveScriptModule, which every scripted model is",
    "_error_if_any_worker_fails": "asked for with getattr; a lost connection to a loader's worker then stays one",
    "_input_metadata": "asked for with getattr; answers that lie across their targets are then not told",
    "_reshape_weight_to_matrix": "asked for with getattr; parametrized spectral norms are then not looked at",
    "_u": "part of the names in every stored state of a weight under spectral normalisation; asked for with getattr",
    "_v": "the same",
    "_recursive": "torch.jit._recursive.create_script_module, tapped where it is found",
    "_version": "documented: the counter that in-place operations raise",
    "_worker_loop": "compared with as a text in stacks",
    "_utils": "torch._utils._flatten_dense_tensors is listed by its own name",
}
"""Names that are no risk, with the reason."""
DOCUMENTED = {
    "_saved_", "_saved_dim", "_saved_exponent", "_saved_ignore_index", "_saved_other", "_saved_reduction",
    "_saved_self", "_saved_self_sym_sizes", "_saved_target", "_saved_tensors", "_saved_total_weight",
}  # fmt: skip
"""Of autograd nodes, asked for with a default."""
OF_LEAVES = {"_post_accumulate_grad_hooks"}
"""Asked for with a default: where it has another name, a gradient behind such a hook is read at fewer steps."""
OF_EVERY_MODULE = {
    "_modules", "_parameters", "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
    "_optimizer_step_pre_hooks", "_optimizer_step_post_hooks", "_BatchNorm",
}  # fmt: skip
"""In every pickled module and optimizer, and the base class of the norms: they cannot change."""
OPERATORS = {"_softmax", "_log_softmax"}
IN_GRAPHS = compiled_gradients.BOUNDED
"""Operators compared with as texts: another name is one more operation that nobody knows."""
TEXTS = {"_seconds"}
"""The end of a signal's name."""
PYTHONS = {
    "_current_frames", "_getframe", "_lru_cache_wrapper", "_make", "_replace", "_poll", "_recv", "_recv_bytes", "_wait",
    "_wait_for_tstate_lock", "_thread", "_children", "_", "_IF_",
}  # fmt: skip
REPLAY = {"_sequence_nr": "of autograd nodes; the replay asks for it under its fuse, others with getattr"}


def private_names() -> Iterator[str]:
    """Names with one underscore that the hooks use and do not define."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in HOOKS.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    own = {
        node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "cls")
    }
    own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    slots = [
        node.value for node in nodes if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__"
    ]
    own |= {part.value for slot in slots for part in ast.walk(slot) if isinstance(part, ast.Constant)}
    for node in nodes:
        name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "value", None)
        if isinstance(name, str) and name.isidentifier() and name[0] == "_" and name[:2] != "__" and name not in own:
            yield name


def test_every_private_name_is_accounted_for() -> None:
    known = {*PRIVATE, *ELSEWHERE, *STEADY, *DOCUMENTED, *OF_LEAVES, *OF_EVERY_MODULE}
    known |= {*OPERATORS, *IN_GRAPHS, *TEXTS, *PYTHONS, *REPLAY}

    assert set(private_names()) - known == set()
