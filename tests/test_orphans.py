"""An optimizer that still holds what was replaced in the model."""

import numpy as np
import torch
from torch import nn
from torchvitals.detectors.detector import Reading
from torchvitals.detectors.stuck_parameters import IdleOptimizer
from torchvitals.hooks.orphans import held_twice, orphans


def trained(model, optimizer):
    model(torch.randn(4, 6)).sum().backward()
    return [p for group in optimizer.param_groups for p in group["params"]]


def network():
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 9))


def test_a_head_replaced_after_the_optimizer_was_built_leaves_orphans_and_is_left_out():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model[2] = nn.Linear(5, 3)
    assert orphans(trained(model, optimizer), [model]) == (2, ["2.weight", "2.bias"])


def test_a_module_that_is_used_later_and_a_layer_left_out_on_purpose_are_no_orphans():
    model, critic = network(), nn.Linear(6, 1)
    both = torch.optim.SGD([*model.parameters(), *critic.parameters()], 0.1)
    assert orphans(trained(model, both), [model]) is None
    head_only = torch.optim.SGD(model[2].parameters(), 0.1)
    assert orphans(trained(model, head_only), [model]) is None
    temperature = nn.Parameter(torch.zeros(()))
    with_scalar = torch.optim.SGD([*model.parameters(), temperature], 0.1)
    assert orphans(trained(model, with_scalar), [model]) is None


def test_orphans_are_told_at_once_and_once():
    detector = IdleOptimizer()
    told = []
    for step in range(30):
        values = {"orphaned_parameters": [2.0]} if step == 10 else {}
        told += detector.update(Reading.of(step, learning_rate=np.array([0.1]), **values))
    assert [(f.step, f.first_step, f.evidence["relation"]) for f in told] == [(10, 0, "stale_parameters")]


def test_two_optimizers_on_one_model_and_none_on_the_other_are_told():
    generator, critic = network(), nn.Linear(9, 1)
    critic(generator(torch.randn(4, 6))).sum().backward()
    of_critic, of_generator = list(critic.parameters()), list(generator.parameters())
    found = held_twice([of_critic, of_critic], [critic, generator])
    assert found is not None
    assert (found.number, found.left_out[0]) == (2, "Sequential.0.weight")
    assert held_twice([of_critic, of_generator], [critic, generator]) is None
    assert held_twice([of_critic, [*of_critic, *of_generator]], [critic, generator]) is None
    assert held_twice([of_critic], [critic, generator]) is None  # an attack on a fixed generator
