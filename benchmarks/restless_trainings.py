"""Healthy trainings whose loss need not fall: adversarial, reinforcement, annealed, contrastive, likelihoods."""

import torch
from healthy_trainings import healthy
from models import CharTransformer, blobs, mlp
from recording import Tape
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


def ring(count: int) -> Tensor:
    """Points on eight small clusters around a circle."""
    angle = torch.randint(0, 8, (count,)) * (torch.pi / 4)
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(count, 2)


@healthy
def gan(seed: int) -> list[Tape]:
    return adversarial(seed, 1e-3, 600)


@healthy
def gan_strong_critic(seed: int) -> list[Tape]:
    """The discriminator wins: its loss falls to nothing and the generator's climbs and stays."""
    return adversarial(seed, 2e-4, 800, critic_rate=4e-3)


def adversarial(seed: int, rate: float, steps: int, critic_rate: float | None = None) -> list[Tape]:
    torch.manual_seed(seed)
    generator, critic = mlp(4, 64, 2), mlp(2, 64, 1)
    made = Tape(generator.parameters(), torch.optim.Adam(generator.parameters(), rate, betas=(0.5, 0.999)))
    judged = Tape(critic.parameters(), torch.optim.Adam(critic.parameters(), critic_rate or rate, betas=(0.5, 0.999)))
    ones, zeros = torch.ones(64, 1), torch.zeros(64, 1)
    for _ in range(steps):
        false = generator(torch.randn(64, 4))
        bce = F.binary_cross_entropy_with_logits
        judged.learn(bce(critic(ring(64)), ones) + bce(critic(false.detach()), zeros), false.detach())
        made.learn(bce(critic(false), ones), false.detach())
    return [judged, made]


@healthy
def wasserstein(seed: int) -> list[Tape]:
    """Critic values drift through zero and far from it."""
    torch.manual_seed(seed)
    generator, critic = mlp(4, 64, 2), mlp(2, 64, 1)
    made = Tape(generator.parameters(), torch.optim.RMSprop(generator.parameters(), 5e-4))
    judged = Tape(critic.parameters(), torch.optim.RMSprop(critic.parameters(), 5e-4))
    for _ in range(500):
        false = generator(torch.randn(64, 4))
        judged.learn(critic(false.detach()).mean() - critic(ring(64)).mean(), false.detach())
        with torch.no_grad():
            for parameter in critic.parameters():
                parameter.clamp_(-0.1, 0.1)
        made.learn(-critic(false).mean(), false.detach())
    return [judged, made]


def pole(policy: nn.Module, limit: int = 200) -> tuple[Tensor, Tensor, int]:
    """One episode of a cart and its pole: log-probabilities, states, length."""
    state = 0.1 * (torch.rand(4) - 0.5)
    chosen: list[Tensor] = []
    states: list[Tensor] = []
    for _ in range(limit):
        states.append(state)
        logits = policy(state)
        action = int(torch.multinomial(logits.detach().softmax(0), 1))
        chosen.append(logits.log_softmax(0)[action])
        state = cart(state, 10.0 if action else -10.0)
        if abs(float(state[0])) > 2.4 or abs(float(state[2])) > 0.21:
            break
    return torch.stack(chosen), torch.stack(states), len(states)


def cart(state: Tensor, force: float) -> Tensor:
    x, speed, angle, turn = state.tolist()
    sine, cosine = float(torch.sin(state[2])), float(torch.cos(state[2]))
    push = (force + 0.05 * turn * turn * sine) / 1.1
    twist = (9.8 * sine - cosine * push) / (0.5 * (4 / 3 - 0.1 * cosine * cosine / 1.1))
    pushed = push - 0.05 * twist * cosine / 1.1
    return torch.tensor([x + 0.02 * speed, speed + 0.02 * pushed, angle + 0.02 * turn, turn + 0.02 * twist])


@healthy
def policy_gradient(seed: int) -> list[Tape]:
    """REINFORCE without a baseline: the loss grows with the return."""
    return reinforce(seed, normalise=False)


@healthy
def policy_gradient_normalised(seed: int) -> list[Tape]:
    """Normalised returns: the loss is noise around zero."""
    return reinforce(seed, normalise=True)


def reinforce(seed: int, *, normalise: bool) -> list[Tape]:
    torch.manual_seed(seed)
    policy = mlp(4, 32, 2, depth=1)
    tape = Tape(policy.parameters(), torch.optim.Adam(policy.parameters(), 5e-3))
    for _ in range(150):
        chosen, states, length = pole(policy)
        returns = torch.arange(length, 0, -1, dtype=torch.float32)
        if normalise:
            returns = (returns - returns.mean()) / (returns.std() + 1e-8)
        tape.learn(-(chosen * returns).sum(), states)
    return [tape]


@healthy
def actor_critic(seed: int) -> list[Tape]:
    """Policy, value and entropy terms in one loss; the value term grows with the returns."""
    torch.manual_seed(seed)
    policy, value = mlp(4, 32, 2, depth=1), mlp(4, 32, 1, depth=1)
    parameters = [*policy.parameters(), *value.parameters()]
    tape = Tape(parameters, torch.optim.Adam(parameters, 3e-3), clip=0.5)
    for _ in range(150):
        chosen, states, length = pole(policy)
        returns = torch.arange(length, 0, -1, dtype=torch.float32)
        worth = value(states).squeeze(1)
        advantage = returns - worth.detach()
        tape.learn(-(chosen * advantage).mean() + 0.5 * F.mse_loss(worth, returns) + 0.01 * chosen.mean(), states)
    return [tape]


@healthy
def bootstrapped_values(seed: int) -> list[Tape]:
    """Temporal differences with a target copy renewed every 50 steps: values and loss grow, then settle."""
    torch.manual_seed(seed)
    value, target = mlp(4, 32, 1), mlp(4, 32, 1)
    tape = Tape(value.parameters(), torch.optim.Adam(value.parameters(), 2e-3))
    for step in range(1000):
        if step % 50 == 0:
            target.load_state_dict(value.state_dict())
        states = torch.randn(32, 4)
        following = states + 0.1 * torch.randn(32, 4)
        goal = states[:, :1].abs() + 0.97 * target(following).detach()
        tape.learn(F.mse_loss(value(states), goal), states)
    return [tape]


@healthy
def annealed_autoencoder(seed: int) -> list[Tape]:
    """Summed reconstruction and a KL term whose weight goes from 0 to 4 in cycles."""
    torch.manual_seed(seed)
    inputs, _ = blobs(2000, 16, 6, spread=0.3)
    encoder, decoder = mlp(16, 64, 8), mlp(4, 64, 16)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    tape = Tape(parameters, torch.optim.Adam(parameters, 2e-3))
    for step in range(900):
        rows = inputs[torch.randint(0, 2000, (64,))]
        mean, spread = encoder(rows).chunk(2, 1)
        code = mean + torch.randn_like(mean) * (0.5 * spread).exp()
        divergence = 0.5 * (mean**2 + spread.exp() - spread - 1).sum(1).mean()
        loss = ((decoder(code) - rows) ** 2).sum(1).mean() + 4 * min(1.0, (step % 300) / 200) * divergence
        tape.learn(loss, rows)
    return [tape]


@healthy
def contrastive(seed: int) -> list[Tape]:
    torch.manual_seed(seed)
    inputs, _ = blobs(1000, 16, 20, spread=0.5)
    model = mlp(16, 64, 16)
    tape = Tape(model.parameters(), torch.optim.Adam(model.parameters(), 1e-3))
    for _ in range(500):
        rows = inputs[torch.randint(0, 1000, (64,))]
        left = F.normalize(model(rows + 0.3 * torch.randn_like(rows)), dim=1)
        right = F.normalize(model(rows + 0.3 * torch.randn_like(rows)), dim=1)
        tape.learn(F.cross_entropy(left @ right.T / 0.1, torch.arange(64)), rows)
    return [tape]


@healthy
def triplets(seed: int) -> list[Tape]:
    """A hinge that is exactly zero more and more often."""
    torch.manual_seed(seed)
    inputs, labels = blobs(1000, 16, 5, spread=0.5)
    model = mlp(16, 64, 8)
    tape = Tape(model.parameters(), torch.optim.Adam(model.parameters(), 1e-3))
    for _ in range(600):
        anchors = torch.randint(0, 1000, (8,))
        friends = torch.stack([(labels == labels[a]).nonzero()[0, 0] for a in anchors])
        others = torch.stack([(labels != labels[a]).nonzero()[int(torch.randint(0, 100, ())), 0] for a in anchors])
        loss = F.triplet_margin_loss(model(inputs[anchors]), model(inputs[friends]), model(inputs[others]))
        tape.learn(loss, inputs[anchors])
    return [tape]


@healthy
def shrinking_variance(seed: int) -> list[Tape]:
    """Gaussian likelihood with a learnt variance: the loss goes far below zero, with spikes upward."""
    torch.manual_seed(seed)
    model = mlp(8, 64, 2)
    tape = Tape(model.parameters(), torch.optim.Adam(model.parameters(), 2e-3), clip=10.0)
    weights = torch.randn(8, 1)
    for _ in range(1500):
        inputs = torch.randn(32, 8)
        mean, spread = model(inputs).chunk(2, 1)
        targets = torch.tanh(inputs @ weights) + 0.01 * torch.randn(32, 1)
        spread = spread.clamp(-10, 10)
        tape.learn((0.5 * ((targets - mean) ** 2 * (-spread).exp() + spread)).mean(), inputs)
    return [tape]


@healthy
def distilled(seed: int) -> list[Tape]:
    """KL to a teacher from which the student starts: the loss begins at exactly zero and rises with dropout."""
    torch.manual_seed(seed)
    teacher, student = mlp(16, 64, 10), mlp(16, 64, 10)
    student.load_state_dict(teacher.state_dict())
    tape = Tape(student.parameters(), torch.optim.Adam(student.parameters(), 1e-3))
    for step in range(500):
        inputs = torch.randn(32, 16)
        noisy = inputs if step == 0 else F.dropout(inputs, 0.1)
        goal = teacher(inputs).detach().softmax(1)
        tape.learn(F.kl_div(student(noisy).log_softmax(1), goal, reduction="batchmean"), noisy)
    return [tape]


@healthy
def two_tasks(seed: int) -> list[Tape]:
    """A regression of changing scale beside a classification."""
    torch.manual_seed(seed)
    inputs, labels = blobs(1000, 16, 6, spread=1.0)
    model = mlp(16, 64, 7)
    tape = Tape(model.parameters(), torch.optim.AdamW(model.parameters(), 2e-3), clip=1.0)
    for step in range(600):
        rows = torch.randint(0, 1000, (32,))
        output = model(inputs[rows])
        weight = 5.0 if step > 300 else 1.0
        targets = inputs[rows].sum(1)
        loss = F.cross_entropy(output[:, :6], labels[rows]) + weight * F.mse_loss(output[:, 6], targets)
        tape.learn(loss, inputs[rows])
    return [tape]


@healthy
def accumulated(seed: int) -> list[Tape]:
    """Four micro-batches to a step; the recorded loss is their sum."""
    torch.manual_seed(seed)
    inputs, labels = blobs(2000, 20, 10, spread=2.0)
    model = mlp(20, 64, 10)
    tape = Tape(model.parameters(), torch.optim.SGD(model.parameters(), 0.05, momentum=0.9), clip=1.0)
    for _ in range(400):
        tape.optimizer.zero_grad()
        total = 0.0
        for _ in range(4):
            rows = torch.randint(0, 2000, (8,))
            loss = F.cross_entropy(model(inputs[rows]), labels[rows]) / 4
            loss.backward()
            total += float(loss)
        tape.apply(total, inputs[rows])
    return [tape]


@healthy
def rare_long_inputs(seed: int) -> list[Tape]:
    """Now and then a batch of another kind: higher loss for one step, and nothing is wrong."""
    torch.manual_seed(seed)
    text = torch.randint(0, 27, (4000,))
    model = CharTransformer(27, 16)
    tape = Tape(model.parameters(), torch.optim.AdamW(model.parameters(), 3e-3), clip=1.0)
    for step in range(300):
        start = int(torch.randint(0, 64, ())) if step % 37 else int(torch.randint(0, 3900, ()))
        window = text[start : start + 33].unsqueeze(0)
        tape.learn(F.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten()), window)
    return [tape]
