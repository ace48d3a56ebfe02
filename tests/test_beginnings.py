"""What happens to weights before the first step: what is wrong is told with its cause, and no healthy twin is told."""

import copy
import math

import pytest
import torch
from test_miswired import evaluate, learn, told
from torch import nn
from torchvitals.agent.offline import diagnose_directory
from torchvitals.hooks import attach
from torchvitals.hooks.spectral_norms import Normalised, norm_left

WIDTH = 32


class Block(nn.Module):
    """A layer and its projection onto the residual path."""

    def __init__(self):
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, rows):
        return rows + self.c_proj(torch.relu(self.c_fc(rows)))


class Tower(nn.Module):
    """Blocks between an embedding and a head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Linear(8, WIDTH), nn.Linear(WIDTH, 4)
        self.blocks = nn.ModuleList(Block() for _ in range(4))

    def forward(self, rows):
        rows = self.embed(rows)
        for block in self.blocks:
            rows = block(rows)
        return self.head(rows)


def first(action):
    """A training that does something to its model before the first step."""

    def train(model, optimizer, step):
        if not step:
            action(model)
        learn(model, optimizer)

    return train


# -- initialisation -------------------------------------------------------------------------------------


def generic(module):
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.2)


def special(module, ends="c_proj.weight", recurse=True):
    generic(module)
    for name, parameter in module.named_parameters(recurse=recurse):
        if name.endswith(ends):
            parameter.data.normal_(std=0.2 / math.sqrt(8))


def undone(module):
    """Draws zeros for a projection where it is met, and everything anew at the top."""
    generic(module)
    if isinstance(module, Block):
        nn.init.zeros_(module.c_proj.weight)
    if isinstance(module, Tower):
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.2)


@pytest.mark.parametrize("fresh", [special, undone])
def test_weights_that_are_drawn_for_every_module_around_them(tmp_path, fresh):
    (incident,) = told(tmp_path, Tower(), first(lambda model: model.apply(fresh)))

    assert incident[:2] == ("miswired", "repeated_initialization")
    assert incident[2].endswith(f"test_beginnings.py:{fresh.__code__.co_firstlineno}")


def where_it_belongs(module):
    """As transformers has it since: for the direct child alone."""
    generic(module)
    if isinstance(module, Block):
        nn.init.normal_(module.c_proj.weight, std=0.2 / math.sqrt(8))


def everything_below(module):
    """Redraws all that it reaches, each time in the same way: wasteful, and the same in the end."""
    for name, parameter in module.named_parameters():
        if "weight" in name:
            nn.init.uniform_(parameter.data, -0.2, 0.2)
        else:
            nn.init.constant_(parameter.data, 0)


def behind_it(model):
    """As nanoGPT does: the special ones in a loop of their own."""
    model.apply(generic)
    for name, parameter in model.named_parameters():
        if name.endswith("c_proj.weight"):
            nn.init.normal_(parameter, std=0.2 / math.sqrt(8))


def several_passes(model):
    """As nested constructors do: each calls it on itself."""
    for block in model.blocks:
        block.apply(where_it_belongs)
    for _ in range(3):
        model.apply(where_it_belongs)
        model.apply(lambda module: module.reset_parameters() if hasattr(module, "reset_parameters") else None)


@pytest.mark.parametrize(
    "build",
    [
        behind_it,
        several_passes,
        lambda model: model.apply(where_it_belongs),
        lambda model: model.apply(everything_below),
        lambda model: model.apply(lambda module: module.requires_grad_(True)),
    ],
)
def test_other_ways_to_draw_weights_are_sound(tmp_path, build):
    assert told(tmp_path, Tower(), first(build)) == []


def test_apply_is_torchs_own_again_once_the_job_trains(tmp_path):
    original, model = nn.Module.apply, Tower()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    with attach(model, optimizer, directory=tmp_path):
        replaced = nn.Module.apply
        learn(model, optimizer)

        assert (replaced is original, nn.Module.apply is original) == (False, True)


# -- loading --------------------------------------------------------------------------------------------


def trained():
    model = Tower()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.state_dict()


def redraw(model):
    model.load_state_dict(trained())
    model.apply(generic)


def test_a_checkpoint_that_is_drawn_over(tmp_path):
    assert told(tmp_path, Tower(), first(redraw)) == [("miswired", "weights_overwritten", "parameters")]


def new_head(model):
    model.load_state_dict(trained())
    model.head.reset_parameters()


def upper_blocks_anew(model):
    model.load_state_dict(trained())
    for block in model.blocks[2:]:
        block.apply(generic)


def shrunk_and_perturbed(model):
    model.load_state_dict(trained())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5).add_(0.01 * torch.randn_like(parameter))


def another_one_on_top(model):
    model.load_state_dict(trained())
    model.load_state_dict({name: 0.2 * torch.randn_like(value) for name, value in trained().items()})


def baseline_first(model):
    """The old model is measured, and then a new one is trained in its place."""
    model.load_state_dict(trained())
    evaluate(model.eval())
    model.train().apply(generic)


def a_teacher(model):
    """Another model takes the checkpoint, and this one is drawn."""
    model.teacher = [Tower()]
    model.teacher[0].load_state_dict(trained())
    model.apply(generic)


@pytest.mark.parametrize(
    "load", [new_head, upper_blocks_anew, shrunk_and_perturbed, another_one_on_top, baseline_first, a_teacher]
)
def test_what_is_done_to_a_checkpoint_on_purpose(tmp_path, load):
    assert told(tmp_path, Tower(), first(load)) == []


def test_a_checkpoint_whose_weight_is_nothing_but_zeros(tmp_path):
    def load(model):
        model.load_state_dict({**trained(), "blocks.1.c_fc.weight": torch.zeros(WIDTH, WIDTH)})

    found = told(tmp_path, Tower(), first(load))

    assert found == [("miswired", "corrupted_checkpoint", "blocks.1.c_fc.weight")]


@pytest.mark.parametrize("zero", ["in the fresh model, too", "everywhere", "a bias"])
def test_zeros_that_are_meant(tmp_path, zero):
    model = Tower()
    if zero == "in the fresh model, too":
        nn.init.zeros_(model.blocks[1].c_proj.weight)
    saved = copy.deepcopy(model.state_dict())
    if zero == "a bias":
        saved["head.bias"].zero_()

    def load(model):
        if zero == "everywhere":
            model.load_state_dict({name: torch.zeros_like(value) for name, value in saved.items()})
            for name, value in model.state_dict().items():
                value.add_(saved[name])
        else:
            model.load_state_dict(saved)

    assert told(tmp_path, model, first(load)) == []


def wrapped(state, prefix="module."):
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "net.encoder."])
def test_a_checkpoint_of_which_nothing_was_taken(tmp_path, prefix):
    ((kind, cause, where),) = told(
        tmp_path, Tower(), first(lambda model: model.load_state_dict(wrapped(trained(), prefix), strict=False))
    )
    assert (kind, cause) == ("miswired", "checkpoint_not_loaded")
    assert "test_beginnings.py:" in where


def test_a_bare_checkpoint_for_a_wrapped_model(tmp_path):
    wrappers = []

    def load(model):
        wrappers.append(nn.Sequential(model))
        wrappers[0].load_state_dict(trained(), strict=False)

    ((_, cause, _),) = told(tmp_path, Tower(), first(load))
    assert cause == "checkpoint_not_loaded"


def second_spelling(model):
    model.load_state_dict(wrapped(trained()), strict=False)
    model.load_state_dict(trained())


def part_by_part(model):
    model.load_state_dict(wrapped(trained()), strict=False)
    for name, part in model.named_children():
        state = {key.removeprefix(f"{name}."): value for key, value in trained().items() if key.startswith(f"{name}.")}
        part.load_state_dict(state)


def of_another_model(model):
    model.load_state_dict({"stem.weight": torch.ones(3), "stem.bias": torch.ones(3)}, strict=False)


def of_other_shapes(model):
    model.load_state_dict({f"old.{name}": value[:1] for name, value in trained().items()}, strict=False)


def a_part_is_there(model):
    state = trained()
    model.load_state_dict({**wrapped(state), "head.weight": state["head.weight"]}, strict=False)


def drawn_afterwards(model):
    model.load_state_dict(wrapped(trained()), strict=False)
    model.apply(generic)


@pytest.mark.parametrize(
    "load", [second_spelling, part_by_part, of_another_model, of_other_shapes, a_part_is_there, drawn_afterwards]
)
def test_loads_that_are_not_strict_for_a_reason(tmp_path, load):
    assert told(tmp_path, Tower(), first(load)) == []


# -- spectral normalisation -----------------------------------------------------------------------------


def critic(normalise, anew=False):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    for layer in model[::2]:
        normalise(layer)
        if anew:
            nn.init.orthogonal_(layer.parametrizations.weight.original)
    return model


def tried_out(model, rows=16):
    model.eval()
    with torch.no_grad():
        model(torch.randn(rows, 8))
    model.train()


@pytest.mark.parametrize("kind", ["hook", "parametrized"])
def test_a_spectral_norm_before_the_first_training_forward(tmp_path, kind):
    new = kind == "parametrized"
    model = critic(nn.utils.parametrizations.spectral_norm if new else nn.utils.spectral_norm, anew=new)

    (incident,) = told(tmp_path, model, first(tried_out))

    assert incident[:2] == ("miswired", "unconverged_spectral_norm")
    assert incident[2] in {"0.weight", "2.weight", "4.weight"}


def test_a_copy_that_never_trains_has_norms_of_its_own(tmp_path):
    """Averaged weights without averaged buffers."""
    model = critic(nn.utils.spectral_norm)
    averaged = copy.deepcopy(model)

    def train(model, optimizer, step):
        learn(model, optimizer)
        with torch.no_grad():
            for mine, theirs in zip(averaged.parameters(), model.parameters(), strict=True):
                mine.lerp_(theirs, 0.5)
        if step == 60:
            tried_out(averaged)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with attach([model, averaged], optimizer, directory=tmp_path, overhead=1.0):
        for step in range(120):
            train(model, optimizer, step)
    (run,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    (incident,) = diagnose_directory(run).incidents

    assert (incident.cause, incident.first_step) == ("unconverged_spectral_norm", 61)


def between(model, optimizer, step):
    """Trained with evaluations in between."""
    learn(model, optimizer)
    if step % 30 == 0:
        tried_out(model)


def with_its_buffers(model):
    other = critic(nn.utils.spectral_norm)
    for _ in range(30):
        other(torch.randn(16, 8))
    model.load_state_dict(other.state_dict())
    tried_out(model)


def after_warming_up(model):
    with torch.no_grad():
        model(torch.randn(16, 8))
    tried_out(model)


@pytest.mark.parametrize(
    "train", [between, first(with_its_buffers), first(after_warming_up), first(lambda model: tried_out(model, rows=1))]
)
def test_spectral_norms_that_have_settled(tmp_path, train):
    assert told(tmp_path, critic(nn.utils.spectral_norm), train) == []


def test_the_parametrization_has_settled_when_it_is_made(tmp_path):
    model = critic(nn.utils.parametrizations.spectral_norm)

    assert told(tmp_path, model, first(tried_out)) == []


def test_looking_at_norms_changes_neither_the_buffers_nor_the_random_numbers(tmp_path):
    plain, watched = critic(nn.utils.spectral_norm), critic(nn.utils.spectral_norm)
    torch.manual_seed(1)
    tried_out(plain)
    expected = torch.rand(3)
    with attach(watched, torch.optim.SGD(watched.parameters(), lr=0.1), directory=tmp_path):
        torch.manual_seed(1)
        tried_out(watched)
        found = torch.rand(3)

    assert torch.equal(found, expected)
    assert all(torch.equal(one, other) for one, other in zip(plain.buffers(), watched.buffers(), strict=True))


@pytest.mark.parametrize("weight", [torch.zeros(4, 4), torch.full((4, 4), torch.nan)])
def test_a_weight_without_a_norm_has_nothing_wrong_with_its_estimate(weight):
    ones = torch.ones(4) / 2

    assert norm_left(Normalised("weight", weight, ones, ones)).item() == 0.0
