"""Prediction drift: what a service answers has changed."""

from typing import ClassVar

from torchvitals.detectors.two_sample import TwoSampleDetector


class PredictionDrift(TwoSampleDetector):
    """The answers have changed: class shares, confidence, entropy, or a regression's level.

    The model's own outputs are the most telling reduction of its inputs (black-box shift detection, Lipton, Wang
    & Smola 2018, arXiv 1802.03916). Without drift of the inputs, either the mix of classes has changed or the
    model has; see :class:`TwoSampleDetector` for the method.

    Blocks of 16 requests of one row; the share of the first class goes from 0.2 to 0.7 at request 320:

    >>> import numpy as np
    >>> from torchvitals.detectors.detector import Reading
    >>> rng, drift = np.random.default_rng(0), PredictionDrift()
    >>> for block in range(40):
    ...     first = rng.beta(2, 8, 16) if block < 20 else rng.beta(7, 3, 16)
    ...     rows = np.stack([first, 1 - first], axis=1)
    ...     for finding in drift.update(Reading.of(
    ...         16 * block, feature_mean=rows.mean(0), feature_std=rows.std(0), feature_missing=[0, 0],
    ...         feature_zero=[0, 0], feature_rows=[16, 16], feature_role=[2, 2])):
    ...         print(finding.kind, finding.subject, finding.first_step, finding.step)
    prediction_drift 0 320 368
    prediction_drift 1 320 368

    """

    kind: ClassVar[str] = "prediction_drift"
    watches_outputs: ClassVar[bool] = True
