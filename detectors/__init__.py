"""What counts as sick: every detector by name. One line here, and the contract suite and the engine have it."""

from torchvitals.detectors.detector import Detector, RecordDetector

DETECTORS: tuple[type[Detector], ...] = ()
RECORD_DETECTORS: tuple[type[RecordDetector], ...] = ()
