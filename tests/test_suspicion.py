"""When a jump is worth a look: each in turn, then after ever longer rests, and at any time when it is a large one."""

from torchvitals.hooks.suspicion import Suspicion

RESTLESS = [0.1, 0.4] * 20


def looks(losses, suspicion=None):
    suspicion = suspicion or Suspicion()
    return [step for step, loss in enumerate(losses) if suspicion.look({"loss": loss, "tripwire_norm": 1.0})]


def test_a_restless_loss_is_looked_at_less_and_less():
    assert looks(RESTLESS) == [1, 2, 3, 4]


def test_a_loss_that_explodes_in_a_rest_is_looked_at_all_the_same():
    assert looks([*RESTLESS, 200.0, 1.0, 1.0, 1.0, 1.0]) == [1, 2, 3, 4, 40, 41, 42, 43]


def test_the_bounds_of_counted_steps_are_wide_in_a_rest_and_open_when_it_has_been_urgent_too_often():
    suspicion = Suspicion(urgent_bursts=1)
    assert looks([*RESTLESS], suspicion)
    low, high, highest = suspicion.bounds()
    assert low < 1e-3
    assert 1e3 < high < 1e6
    assert 1.0 < highest < 27 * 0.4
    assert looks([200.0], suspicion) == [0]
    assert suspicion.bounds()[2] == float("inf")
