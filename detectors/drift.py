"""Drift: the inputs of a service no longer come from where they came from."""

from typing import ClassVar

from torchvitals.detectors.two_sample import TwoSampleDetector


class Drift(TwoSampleDetector):
    """The requests have changed: a mean, a scale, a share of missing values or of zeros.

    Self-calibrating two-sample tests on blocks of requests; see :class:`TwoSampleDetector` for the method and
    its thresholds. Fixed distances alarm on 38 to 99 % of quiet windows of 100 rows; these do not
    (Rabanser, Günnemann & Lipton 2019, "Failing Loudly", arXiv 1810.11953, for univariate tests with correction).

    Blocks of 16 requests with 32 rows each; one of two features is multiplied by 25.4 from request 320 on:

    >>> import numpy as np
    >>> from torchvitals.detectors.detector import Reading
    >>> rng, drift = np.random.default_rng(0), Drift()
    >>> for block in range(40):
    ...     rows = rng.normal(5.0, 1.0, (512, 2))
    ...     if block >= 20:
    ...         rows[:, 1] *= 25.4
    ...     for finding in drift.update(Reading.of(
    ...         16 * block, feature_mean=rows.mean(0), feature_std=rows.std(0), feature_missing=[0, 0],
    ...         feature_zero=[0, 0], feature_rows=[512, 512], feature_role=[0, 0])):
    ...         print(finding.kind, finding.subject, finding.first_step, finding.step, finding.evidence["change"])
    drift 1 320 352 mean

    """

    kind: ClassVar[str] = "drift"
    watches_outputs: ClassVar[bool] = False
