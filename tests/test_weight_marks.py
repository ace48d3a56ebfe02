"""Weights that somebody else has written to between two steps, also through ``.data``; and what must not be told."""

import pytest
import torch
from torch import nn
from torchvitals.hooks.weight_marks import WeightMarks


def marks_of(*weights):
    marks = WeightMarks()
    marks.keep(list(weights))
    return marks


def layers(count=6):
    return [nn.Parameter(torch.randn(5, 4)) for _ in range(count)]


@pytest.mark.parametrize("how", ["in place", "another memory", "no grad"])
def test_all_written_weights_are_seen(how):
    weights = layers()
    marks = marks_of(*weights)

    for weight in weights:
        if how == "in place":
            weight.data.copy_(torch.randn(5, 4))
        elif how == "another memory":
            weight.data = torch.randn(5, 4)
        else:
            with torch.no_grad():
                weight.add_(1.0)

    assert marks.written() == 1.0


def test_swapped_and_swapped_back_is_not_written():
    weights = layers()
    marks = marks_of(*weights)
    before = [weight.detach().clone() for weight in weights]

    for weight in weights:
        weight.data.zero_()
    for weight, was in zip(weights, before, strict=True):
        weight.data = was

    assert marks.written() == 0.0


def test_what_is_kept_again_is_the_new_state_and_one_layer_is_no_model():
    weights = layers(4)
    marks = WeightMarks()
    marks.keep(weights)
    weights[2].data.mul_(3.0)

    assert marks.written() == 0.5
    marks.keep(weights)
    assert marks.written() == 0.0


def test_weights_that_cannot_be_read_without_waiting_or_do_not_learn_are_left_alone():
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    elsewhere = nn.Parameter(torch.ones(2, device="meta"))

    assert not marks_of(frozen, elsewhere)
    assert marks_of(frozen).written() == 0.0


def test_memory_that_was_taken_away_is_not_read():
    weight = nn.Parameter(torch.ones(4))
    weights = [weight]
    marks = WeightMarks()
    marks.keep(weights)
    weight.untyped_storage().resize_(0)

    assert marks.written() == 0.0
    marks.keep(weights)
    assert not marks


@pytest.mark.parametrize(("share", "told"), [(0.3, 0.0), (0.9, 0.0), (0.0, 1.0), (None, 1.0)])
def test_weights_pulled_back_together_are_an_average_made_by_hand(share, told):
    """Reptile and slow weights: each time a part of the way back to where they had been pulled to the last time."""
    weights = layers()
    marks = marks_of(*weights)
    kept = marks._weights
    for _ in range(3):
        start = [weight.detach().clone() for weight in weights]
        for weight in weights:
            weight.data.add_(torch.randn(5, 4), alpha=0.1)
        marks.keep(kept)
        for weight, was in zip(weights, start, strict=True):
            weight.data.copy_(torch.randn(5, 4) if share is None else torch.lerp(was, weight.data, share))

        assert marks.written() == told
        assert marks.written() == told, "looked at twice, as a counted step does"
        marks.keep_again()
