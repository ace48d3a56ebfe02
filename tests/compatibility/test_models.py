"""Several models and optimizers, and parameters that are not one model's own."""

import copy

import pytest
import torch
from compatibility.toys import batch, classifier, perceptron
from compatibility.trial import Trial, Watch
from compatibility.truth import Truth, gradient_norm, gradient_norms
from recorded import events, records
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvitals.signals.records import Axis

LOSS = nn.functional.binary_cross_entropy_with_logits


@pytest.mark.setting(
    "a GAN: two models, two optimizers, alternating steps",
    records=["loss", "gradient_norm", "backward_passes", "parameter_gradient_norm"],
)
def test_generator_and_discriminator(trial: Trial) -> None:
    """As the tutorial of PyTorch writes it: the generator's step also fills the discriminator's gradients."""

    def job(watch: Watch, truth: Truth) -> object:
        generator = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 6))
        discriminator = nn.Sequential(nn.Linear(6, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
        teaching = torch.optim.Adam(discriminator.parameters(), lr=2e-3)
        making = torch.optim.Adam(generator.parameters(), lr=2e-3)
        ones, zeros = torch.ones(8, 1), torch.zeros(8, 1)
        with watch({"generator": generator, "discriminator": discriminator}, [teaching, making]):
            for step in range(6):
                discriminator.zero_grad()
                real = LOSS(discriminator(torch.randn(8, 6)), ones)
                real.backward()
                fake = generator(torch.randn(8, 4))
                wrong = LOSS(discriminator(fake.detach()), zeros)
                wrong.backward()
                truth.note(step, loss=real + wrong, backward_passes=2)
                truth.note(step, gradient_norm=gradient_norm(discriminator.parameters()))
                truth.note_each(step, parameter_gradient_norm=gradient_norms(discriminator.parameters()))
                teaching.step()

                generator.zero_grad()
                loss = LOSS(discriminator(fake), ones)
                loss.backward()
                truth.note(step, 1, loss=loss, backward_passes=1)
                truth.note(step, 1, gradient_norm=gradient_norm(generator.parameters()))
                truth.note_each(step, 1, parameter_gradient_norm=gradient_norms(generator.parameters()))
                making.step()
        return generator, discriminator, teaching, making

    trial.run(job)


@pytest.mark.setting(
    "actor and critic: rollouts without gradients, one loss for two optimizers, each clipped on its own",
    records=["loss", "gradient_norm", "gradient_norm_unclipped"],
)
def test_actor_and_critic(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        actor, critic = perceptron(), nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
        optimizers = [torch.optim.Adam(actor.parameters(), 0.01), torch.optim.RMSprop(critic.parameters(), 0.01)]
        models = [actor, critic]
        with watch(models, optimizers):
            for step in range(5):
                with torch.no_grad():
                    states = [torch.randn(1, 6) for _ in range(8)]
                    actions = torch.cat([torch.distributions.Categorical(logits=actor(s)).sample() for s in states])
                x, returns = torch.cat(states), torch.randn(8, 1)
                values = critic(x)
                log_probability = torch.distributions.Categorical(logits=actor(x)).log_prob(actions)
                loss = (values - returns).pow(2).mean() - (log_probability * (returns - values.detach())[:, 0]).mean()
                for optimizer in optimizers:
                    optimizer.zero_grad()
                loss.backward()
                truth.note(step, loss=loss)
                for index, model in enumerate(models):
                    truth.note(step, index, gradient_norm_unclipped=gradient_norm(model.parameters()))
                    nn.utils.clip_grad_norm_(model.parameters(), 0.3)
                    truth.note(step, index, gradient_norm=gradient_norm(model.parameters()))
                for optimizer in optimizers:
                    optimizer.step()
        return models, optimizers

    trial.run(job)


@pytest.mark.setting(
    "one optimizer for two models, another clipped norm over both",
    records=["loss", "gradient_norm", "gradient_norm_unclipped", "parameter_gradient_norm"],
)
def test_one_optimizer_for_two_models(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        encoder, decoder = nn.Sequential(nn.Linear(6, 3), nn.Tanh()), nn.Sequential(nn.Linear(3, 6), nn.Tanh())
        held = [*encoder.parameters(), *decoder.parameters()]
        optimizer = torch.optim.SGD(held, lr=0.1)
        with watch([encoder, decoder], optimizer):
            for step in range(4):
                x = torch.randn(8, 6)
                loss = (decoder(encoder(x)) - x).pow(2).mean()
                optimizer.zero_grad()
                loss.backward()
                truth.note(step, loss=loss, gradient_norm_unclipped=gradient_norm(held))
                nn.utils.clip_grad_norm_(held, 0.1)
                truth.note(step, gradient_norm=gradient_norm(held))
                truth.note_each(step, parameter_gradient_norm=gradient_norms(held))
                optimizer.step()
        return encoder, decoder

    trial.run(job)


class Tied(nn.Module):
    """A tied head, a frozen layer, a layer that is never called, and one that is called every other time."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(requires_grad=False)
        self.unused = nn.Linear(4, 4)
        self.sometimes = nn.Linear(4, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor, *, twice: bool) -> torch.Tensor:
        hidden = self.frozen(self.embed(x))
        return self.head(self.sometimes(hidden) if twice else hidden)


@pytest.mark.setting(
    "shared, frozen, unused and sometimes used parameters",
    records=["loss", "gradient_norm", "parameter_gradient_norm", "parameters_without_gradient"],
)
def test_shared_frozen_and_unused_parameters(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = Tied()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        with watch(model, optimizer):
            for step in range(4):
                optimizer.zero_grad()
                x = torch.randint(0, 10, (8,))
                loss = nn.functional.cross_entropy(model(x, twice=step % 2 == 1), x)
                loss.backward()
                truth.note(step, loss=loss, gradient_norm=gradient_norm(model.parameters()))
                truth.note(step, parameters_without_gradient=2 if step % 2 else 4)
                truth.note_each(step, parameter_gradient_norm=gradient_norms(model.parameters()))
                optimizer.step()
        return model

    trial.run(job)

    axes = [record for record in records(trial.directory) if isinstance(record, Axis) and record.kind == "parameter"]
    assert axes[0].entries[:3] == ["embed.weight = head.weight", "frozen.weight", "frozen.bias"]


@pytest.mark.setting(
    "sparse gradients of embeddings",
    records=["loss", "gradient_norm", "parameter_gradient_norm"],
)
@pytest.mark.parametrize("bag", [False, True], ids=["embedding", "bag"])
def test_sparse_gradients(trial: Trial, *, bag: bool) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        embedding: nn.Module = nn.EmbeddingBag(50, 4, sparse=True) if bag else nn.Embedding(50, 4, sparse=True)
        model = nn.Sequential(embedding, nn.Linear(4, 3))
        sparse, dense = torch.optim.SparseAdam(embedding.parameters(), 0.01), torch.optim.Adam(model[1].parameters())
        with watch(model, [sparse, dense]):
            for step in range(4):
                model.zero_grad()
                loss = model(torch.randint(0, 50, (8, 2))).pow(2).sum()
                loss.backward()
                truth.note(step, loss=loss)
                for index, part in enumerate(model):
                    truth.note(step, index, gradient_norm=gradient_norm(part.parameters()))
                    truth.note_each(step, index, parameter_gradient_norm=gradient_norms(part.parameters()))
                sparse.step()
                dense.step()
        return model

    trial.run(job)


@pytest.mark.setting(
    "layers unfrozen and a parameter group added during training",
    records=["loss", "gradient_norm"],
)
def test_layers_that_thaw(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = classifier()
        model[0].requires_grad_(requires_grad=False)
        optimizer = torch.optim.SGD(model[4].parameters(), lr=0.1)
        with watch(model, optimizer):
            for step in range(6):
                if step == 3:
                    model[0].requires_grad_(requires_grad=True)
                    optimizer.add_param_group({"params": list(model[0].parameters())})
                x, y = batch()
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                held = [p for group in optimizer.param_groups for p in group["params"]]
                truth.note(step, loss=loss, gradient_norm=gradient_norm(held))
                optimizer.step()
        return model

    trial.run(job)


@pytest.mark.setting(
    "averages of weights (EMA): `copy.deepcopy`, `AveragedModel`, a teacher in every step",
    records=["loss", "gradient_norm", "batch_items", "parameter_weight_norm"],
)
def test_averages_and_teachers(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = classifier()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with watch(model, optimizer) as monitor:
            teacher = copy.deepcopy(model).requires_grad_(requires_grad=False)
            average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
            for step in range(6):
                x, y = batch()
                with torch.no_grad():
                    target = teacher(x).softmax(1)
                loss = nn.functional.cross_entropy(model(x), y) + nn.functional.cross_entropy(model(x), target)
                optimizer.zero_grad()
                loss.backward()
                truth.note(step, loss=loss, gradient_norm=gradient_norm(model.parameters()), batch_items=16)
                optimizer.step()
                truth.note_each(
                    step, parameter_weight_norm=[float(p.detach().double().norm()) for p in model.parameters()]
                )
                average.update_parameters(model)
                with torch.no_grad():
                    for old, new in zip(teacher.parameters(), model.parameters(), strict=True):
                        old.lerp_(new, 0.1)
            if monitor is not None:
                assert [root.module() for root in monitor.observer.roots] == [model]
        return model, teacher, average

    trial.run(job)

    assert not events(trial.directory, "serving")


@pytest.mark.setting("a model fine-tuned from a copy of a watched one", records=["loss", "gradient_norm"])
def test_a_copy_that_trains_on_its_own(trial: Trial) -> None:
    """The copy's hooks are inert: nothing of its training reaches the record of the first."""

    def job(watch: Watch, truth: Truth) -> object:
        model = classifier()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with watch(model, optimizer):
            twin = copy.deepcopy(model)
            other = torch.optim.SGD(twin.parameters(), lr=0.5)
            for step in range(4):
                x, y = batch()
                loss = nn.functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                truth.note(step, loss=loss, gradient_norm=gradient_norm(model.parameters()))
                optimizer.step()
                other.zero_grad()
                grads = torch.autograd.grad(nn.functional.cross_entropy(twin(x), y), list(twin.parameters()))
                for parameter, gradient in zip(twin.parameters(), grads, strict=True):
                    parameter.grad = gradient
                other.step()
        return model, twin

    trial.run(job)
