"""An optimizer that still holds what was replaced in the model."""

import numpy as np
import torch
from torch import nn
from torchvitals.detectors.detector import Reading
from torchvitals.detectors.stuck_parameters import IdleOptimizer
from torchvitals.hooks.neglect import Neglect
from torchvitals.hooks.orphans import held_twice, of_another_model, orphans


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


def test_an_optimizer_of_the_teacher_leaves_the_student_out():
    teacher, student = network(), nn.Linear(6, 3)
    student(torch.randn(4, 6)).sum().backward()
    found = of_another_model(list(teacher.parameters()), [student])
    assert found == (4, ["Linear.weight", "Linear.bias"])
    assert of_another_model([*teacher.parameters(), *student.parameters()], [student]) is None
    student.weight.requires_grad_(False).grad = None
    assert of_another_model([student.weight], [student]) is None  # a part of it that is frozen, and has no gradient
    student.weight.requires_grad_(True)
    teacher(torch.randn(4, 6)).sum().backward()
    assert of_another_model(list(teacher.parameters()), [student]) is None  # an attack on a fixed net, a style


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.blocks = [nn.Linear(6, 6), nn.Linear(6, 6)]

    def forward(self, x):
        for block in self.blocks:
            x = block(self.first(x))
        return x


def looked(neglect, model, *optimizers):
    model(torch.randn(4, 6)).sum().backward()
    return neglect.look(lambda: {id(p) for o in optimizers for group in o.param_groups for p in group["params"]})


def test_layers_in_a_plain_list_that_get_gradients_are_neglected():
    model, neglect = Stack(), Neglect()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    neglect.begin([model])
    assert looked(neglect, model, optimizer)[0] == "blocks.0.weight"
    assert neglect.why == "hidden"
    theirs = torch.optim.SGD([p for block in model.blocks for p in block.parameters()], 0.1)
    assert looked(neglect, model, optimizer, theirs) == []


def test_a_frozen_teacher_in_a_list_is_hidden_on_purpose():
    model, neglect = Stack(), Neglect()
    for block in model.blocks:
        block.requires_grad_(False)
    neglect.begin([model])
    assert looked(neglect, model, torch.optim.SGD(model.parameters(), 0.1)) == []


def test_what_is_thawed_and_in_no_optimizer_is_neglected_until_it_is_added():
    model, neglect = network(), Neglect()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model[2].parameters(), 0.1)
    neglect.begin([model])
    assert looked(neglect, model, optimizer) == []
    model[0].requires_grad_(True)
    assert looked(neglect, model, optimizer) == ["0.weight", "0.bias"]
    assert neglect.why == "thawed"
    optimizer.add_param_group({"params": list(model[0].parameters())})
    assert looked(neglect, model, optimizer) == []


def test_a_backbone_that_is_fixed_by_leaving_it_out_is_not_neglected():
    model, neglect = network(), Neglect()
    neglect.begin([model])
    assert looked(neglect, model, torch.optim.SGD(model[2].parameters(), 0.1)) == []


def test_neglected_parameters_are_told_when_they_stay_so():
    detector = IdleOptimizer()
    told = []
    for step in range(0, 60, 2):
        values = {"neglected_parameters": [2.0]} if step == 6 or step >= 20 else {}
        told += detector.update(Reading.of(step, learning_rate=np.array([0.1]), **values))
        told += detector.update(Reading.of(step + 1, loss=np.array([0.1])))  # a step that is only counted
    assert [(f.step, f.first_step, f.evidence["relation"]) for f in told] == [(24, 19, "neglected_parameters")]
