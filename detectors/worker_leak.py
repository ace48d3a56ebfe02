"""Memory leak of a data loader's workers: what their processes keep is not in the memory of the job."""

from typing import ClassVar

from torchvitals.detectors.memory_leak import MemoryLeak


class WorkerLeak(MemoryLeak):
    """The private memory of the worker processes, all together, rises in a line and is never given back.

    Judged as the job's own memory is. Workers that start anew with each epoch give theirs back, and pages of files and
    of shared memory, as well as those that a worker copies on writing, are not in the figure.

    >>> from torchvitals.detectors.detector import Reading
    >>> detector = WorkerLeak()
    >>> for step in range(400):
    ...     for finding in detector.update(Reading.of(step, worker_bytes=[6e8 + 65536 * step])):
    ...         print(finding.kind, finding.first_step, finding.step, round(finding.value))
    memory_leak 0 175 65536
    """

    reads: ClassVar[tuple[str, ...]] = ("worker_bytes",)
    by_address_space: ClassVar[bool] = False
