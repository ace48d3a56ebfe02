"""What has been felt since the last step and belongs to the step in progress."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Pending:
    """Values on their way to the next step record; whichever optimizer steps next takes them."""

    __slots__ = (
        "backward_passes",
        "collectives",
        "loader_batches",
        "logged",
        "losses",
        "nonfinite_loss",
        "resets",
        "scalars",
        "with_all",
    )

    def __init__(self) -> None:
        self.losses: list[torch.Tensor] = []
        self.backward_passes = 0
        self.collectives: int | None = None
        """Sequence number when the first backward pass began."""
        self.with_all: int | None = None
        """The same of the groups of the wrappers alone, where there are others."""
        self.scalars: dict[str, float] = {}
        self.logged: dict[str, Any] = {}
        self.resets: dict[int, bool | None] = {}
        """Optimizer → whether its gradients were seen cleared; ``None`` where that cannot be told."""
        self.loader_batches = 0
        self.nonfinite_loss = False

    def add(self, name: str, amount: float) -> None:
        """Count more of something into the step."""
        self.scalars[name] = self.scalars.get(name, 0.0) + amount

    def take(self) -> "Pending":
        """What was pending; nothing is afterwards, but for what concerns the other optimizers."""
        taken = Pending()
        for name in Pending.__slots__:
            setattr(taken, name, getattr(self, name))
        resets = self.resets
        self.__init__()  # type: ignore[misc]
        self.resets = resets
        return taken
