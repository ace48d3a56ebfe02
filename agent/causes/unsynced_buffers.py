"""Each rank's BatchNorm remembers other data than the others', or remembers it in another way."""

from typing import ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.ranks import parameter_desync, ranks_text


class UnsyncedBuffers:
    """Speaks from running statistics that lie further apart than batches do, where the parameters agree."""

    word: ClassVar[str] = "unsynced_buffers"
    explains: ClassVar[tuple[str, ...]] = ("desync",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        found = [f for f in case.of_kind("desync") if f.evidence.get("what") == "buffers"]
        if not found:
            return None
        finding = found[0]
        far, limit = float(finding.evidence["times_the_limit"]), float(finding.evidence["limit_deviations"])
        clues = [
            Clue(
                2.0 + (far > 2.0),
                f"running statistics of {finding.name or 'BatchNorm'} lie {far:.1f} times as far apart as ranks with "
                f"like batches do ({limit:g} standard deviations)",
            )
        ]
        if parameter_desync(case):
            clues.append(Clue(-5.0, "the parameters differ as well: the models themselves are others"))
        else:
            clues.append(Clue(1.0, "the parameters agree on all ranks: only what is remembered differs"))
        minority = finding.evidence.get("minority")
        who = ranks_text(list(minority)) if minority else "the ranks"
        return Opinion(
            clues=clues,
            title=f"BatchNorm statistics of {who} are not those of the others",
            explanation=(
                f"From step {finding.first_step} on the running mean or variance of {finding.name or 'a layer'} differ "
                f"between {finding.evidence['ranks_compared']} ranks by {far * limit:.1f} standard deviations or so. "
                "In training each rank normalises by its own batches and nothing shows; evaluation, and the "
                "checkpoint that one rank writes, use the statistics of that rank alone."
            ),
            remedy=(
                "Look whether a rank has the layer in evaluation mode, another momentum, or a shard that was not "
                "shuffled; then deal out the data anew in each epoch, use `torch.nn.SyncBatchNorm."
                "convert_sync_batchnorm`, or leave `broadcast_buffers` of DistributedDataParallel on."
            ),
            rank=minority[0] if minority and len(minority) == 1 else None,
        )
