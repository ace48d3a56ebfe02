"""Two ranks that break one rule of data-parallel training, chosen by the third argument; under torchrun."""

import copy
import random
import sys

import torch
import torch.distributed as dist
from tasks import make
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
rank, fault, steps = dist.get_rank(), sys.argv[3], 260
task = make(sys.argv[1], int(sys.argv[2]))
net = copy.deepcopy(task.model)
model = DistributedDataParallel(net)
optimizer = task.build(net.parameters(), lr=task.rate)
if fault == "decay" and rank == 1:  # a setting read from a file that is not the same on both machines
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.1
torch.manual_seed(100 * int(sys.argv[2]) + (0 if fault == "same_shard" else rank))
scaler = torch.amp.GradScaler("cpu", init_scale=1024.0 * (1 + rank), enabled=fault == "scales")
chance = random.Random(rank)


def learn(inputs: torch.Tensor, targets: torch.Tensor, *, raw: bool = False) -> None:
    optimizer.zero_grad()
    scaler.scale(task.loss((net if raw else model)(inputs), targets)).backward()


def accumulate(inputs: torch.Tensor, targets: torch.Tensor) -> None:
    """The flag is set for the next half where the next but one was meant: the second is shared by nobody."""
    optimizer.zero_grad()
    for number, (some, theirs) in enumerate(zip(inputs.tensor_split(2), targets.tensor_split(2), strict=True)):
        model.require_backward_grad_sync = number == 0
        (task.loss(model(some), theirs) / 2).backward()


def reduce_by_hand(inputs: torch.Tensor, targets: torch.Tensor) -> None:
    """pytorch-84803 and 96600, baichuan2-86: what a reduction brings is lost now and then, on whatever rank."""
    learn(inputs, targets, raw=True)
    for parameter in net.parameters():
        dist.all_reduce(parameter.grad)
        parameter.grad /= dist.get_world_size()
        if chance.random() < 0.02 and step >= 120:
            parameter.grad.zero_()


for step, (inputs, targets) in enumerate(task.batches(steps)):
    if fault == "unshared" and step >= 120:  # forgotten after an accumulation
        with model.no_sync():
            learn(inputs, targets)
    elif fault == "cast" and step == 120:  # pytorch-104336
        model.double()
        model.float()
        learn(inputs, targets)
    elif fault == "last_unshared" and step >= 120:
        accumulate(inputs, targets)
    elif fault == "reductions":
        reduce_by_hand(inputs, targets)
    else:
        learn(inputs, targets, raw=fault == "raw_module" and step >= 120)  # x-jxmnop
    if fault == "clipped" and rank == 0:  # deepspeed-1801
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.05)
    if fault == "lost" and rank == 1 and step > 120 and step % 7 == 0:  # pytorch-84803
        next(net.head.parameters()).grad.zero_()
    if fault == "rate" and rank == 1 and step == 120:
        for group in optimizer.param_groups:
            group["lr"] *= 1.05
    if fault == "sizes" and step == 120:  # deepspeed-5794
        sent = torch.ones(4 * (1 + rank))
        dist.all_to_all_single(torch.zeros_like(sent), sent)  # SIZES
    scaler.step(optimizer)
    scaler.update()
    if fault == "flipped" and rank == 1 and step == 120:  # one bit of one weight
        with torch.no_grad():
            weight = net.head.weight
            bits = weight.view(torch.int32)
            bits[0, 0] ^= 1 << 20
dist.destroy_process_group()
