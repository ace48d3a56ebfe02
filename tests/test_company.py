"""What is found of a rank does not depend on who is watched beside it: every short cut for quiet steps must hold."""

import numpy as np
import pytest
from torchvitals.detectors import DETECTORS
from torchvitals.detectors.detector import Reading
from torchvitals.detectors.duplicate_data import DuplicateData
from torchvitals.detectors.slowdown import Slowdown
from torchvitals.detectors.unsynced_backward import UnsyncedBackward

STEPS, RANKS, ONSET = 330, 7, 160
ALONE = [cls for cls in DETECTORS if cls.axis == "rank" and cls not in (DuplicateData, UnsyncedBackward, Slowdown)]
"""All that judge a rank by itself; two of the others compare ranks, and the third shares its alarms among them."""


def faults(values, rng):
    """A failure of its own for each rank but the first, beginning at ``ONSET``."""
    after = np.arange(STEPS - ONSET)
    growth = np.minimum(1.5**after, 1e25)
    values["loss"][ONSET:, 1] *= growth
    values["gradient_norm"][ONSET:, 1] *= growth
    values["learning_rate"][ONSET:, 2] *= 100
    values["loss"][ONSET:, 2] = 5.0 * np.exp(0.1 * rng.normal(size=len(after)))
    for at in (200, 260):
        for name in ("loss", "gradient_norm", "tripwire_norm"):
            values[name][at : at + 2, 3] *= 500
    values["loss_scale"][ONSET:, 4] /= 2.0 ** np.minimum(after, 60)
    values["skipped_steps"][ONSET:, 4] = 1
    values["learning_rate"][ONSET:, 5] = 0
    values["gradients_reset"][ONSET:, 5] = 0
    values["rss_bytes"][ONSET:, 5] += 5e5 * after
    values["cuda_alloc_retries"][ONSET:, 5] = after // 9
    values["loss"][:, 6] = np.log(10) * np.exp(0.001 * rng.normal(size=STEPS))
    values["step_seconds"][ONSET:, 6] *= 20
    values["gradient_norm"][ONSET + 60 :, 6] = 0


def recording(seed, spoilt):
    """Readings of seven ranks; a share ``spoilt`` of the values is absent, and another not finite."""
    rng = np.random.default_rng(seed)
    names = sorted({name for cls in ALONE for name in cls.reads})
    values = {name: np.exp(0.1 * rng.normal(size=(STEPS, RANKS))) for name in names}
    for name, level in (("learning_rate", 1e-3), ("loss_scale", 65536.0), ("backward_passes", 1), ("batch_items", 32)):
        values[name][:] = level
    for name in names:
        if name.split("_")[0] in ("skipped", "optimizer", "parameters") or name.endswith(("retries", "nonfinite")):
            values[name][:] = 0
    values["gradients_reset"][:] = 1
    values["rss_bytes"] = 3e8 + 1e5 * values["rss_bytes"]
    values["step_seconds"], values["data_seconds"] = 0.05 * values["step_seconds"], 0.01 * values["data_seconds"]
    faults(values, rng)
    present = {name: rng.random((STEPS, RANKS)) >= spoilt for name in names}
    for array in values.values():
        array[rng.random(array.shape) < spoilt / 4] = rng.choice([np.nan, np.inf, 0.0])
    return values, present


def findings(cls, values, present, ranks, *, masked):
    """Of each rank in ``ranks``, as text, in order; the ranks are watched together."""
    detector, found = cls(), {rank: [] for rank in ranks}
    for step in range(STEPS):
        sent = {name: array[step, ranks] for name, array in present.items()}
        row = {name: array[step, ranks] for name, array in values.items()}
        if masked:
            row = {name: np.where(sent[name], array, np.nan) for name, array in row.items()}
        for array in (*row.values(), *sent.values()):
            array.flags.writeable = False
        for finding in detector.update(Reading(step, float(step), row, sent, masked=masked)):
            found[ranks[finding.subject]].append(repr(finding).replace(f"subject={finding.subject}", "subject=_"))
    return found


@pytest.mark.parametrize("spoilt", [0.0, 0.3])
@pytest.mark.parametrize("cls", ALONE, ids=lambda cls: cls.__name__)
def test_a_rank_is_judged_the_same_alone_and_in_company(cls, spoilt):
    values, present = recording(3, spoilt)
    together = findings(cls, values, present, list(range(RANKS)), masked=True)
    for rank in range(RANKS):
        alone = findings(cls, values, present, [rank], masked=False)

        assert alone[rank] == together[rank]


def test_the_recording_has_something_to_find():
    values, present = recording(3, 0.0)
    kinds = {cls.kind for cls in ALONE if any(findings(cls, values, present, [*range(RANKS)], masked=True).values())}

    assert kinds >= {"explosion", "divergence", "loss_scale_collapse", "stuck_parameters", "plateau"}
