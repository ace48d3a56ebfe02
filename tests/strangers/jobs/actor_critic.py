"""An actor and a critic learn to balance a pole: one episode, one update of each, and the episodes grow longer."""

import json
import math
from collections import namedtuple
from itertools import count

import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.distributions import Categorical

torch.manual_seed(543)
SavedAction = namedtuple("SavedAction", ["log_prob", "value", "entropy"])
gamma = 0.99


class Pole:
    """A pole on a cart: the usual equations, steps of 20 ms, at most 60 of them."""

    def reset(self):
        self.state, self.steps = (0.1 * torch.rand(4) - 0.05).tolist(), 0
        return torch.tensor(self.state)

    def step(self, action):
        x, v, angle, spin = self.state
        force = 10.0 if action else -10.0
        push = (force + 0.05 * spin**2 * math.sin(angle)) / 1.1
        turn = 9.8 * math.sin(angle) - math.cos(angle) * push
        turn /= 0.5 * (4.0 / 3.0 - 0.1 * math.cos(angle) ** 2 / 1.1)
        pull = push - 0.05 * turn * math.cos(angle) / 1.1
        self.state = [x + 0.02 * v, v + 0.02 * pull, angle + 0.02 * spin, spin + 0.02 * turn]
        self.steps += 1
        fell = abs(self.state[0]) > 2.4 or abs(self.state[2]) > 0.21
        return torch.tensor(self.state), 1.0, fell or self.steps >= 60


def network(outputs):
    return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, outputs))


actor, critic = network(2), network(1)
actor_optimizer = optim.Adam(actor.parameters(), lr=3e-3)
critic_optimizer = optim.Adam(critic.parameters(), lr=1e-2)
env = Pole()
logged = {"loss": [[], []], "gradient_norm_unclipped": [[], []], "episode": []}
running_reward = 10.0

for i_episode in range(100):
    state, ep_reward = env.reset(), 0.0
    saved, rewards = [], []
    for _ in count():
        distribution = Categorical(logits=actor(state))
        action = distribution.sample()
        saved.append(SavedAction(distribution.log_prob(action), critic(state).squeeze(), distribution.entropy()))
        state, reward, done = env.step(action.item())
        rewards.append(reward)
        ep_reward += reward
        if done:
            break
    R, returns = 0.0, []
    for r in rewards[::-1]:
        R = r + gamma * R
        returns.insert(0, R)
    returns = torch.tensor(returns)
    returns = (returns - returns.mean()) / (returns.std() + 1e-8)
    values = torch.stack([s.value for s in saved])
    advantage = returns - values.detach()
    actor_loss = -(torch.stack([s.log_prob for s in saved]) * advantage).mean()
    actor_loss = actor_loss - 0.01 * torch.stack([s.entropy for s in saved]).mean()
    critic_loss = F.smooth_l1_loss(values, returns)
    both = ((actor, actor_optimizer, actor_loss), (critic, critic_optimizer, critic_loss))
    for which, (net, optimizer, loss) in enumerate(both):
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        optimizer.step()
        logged["loss"][which].append(loss.item())
        logged["gradient_norm_unclipped"][which].append(norm.item())
    logged["episode"].append(ep_reward)
    running_reward = 0.05 * ep_reward + 0.95 * running_reward
    if i_episode % 50 == 0:
        print(f"Episode {i_episode}\tLast reward: {ep_reward:.0f}\tAverage reward: {running_reward:.2f}")

with open("logged.json", "w") as file:
    json.dump(logged, file)
