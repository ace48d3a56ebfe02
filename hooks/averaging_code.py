"""Does the job's own code average weights between ranks? Then steps that share no gradients may be meant so.

Read off the source, once, when a step has shared nothing: from outside, local SGD that begins and a `no_sync` that
was left on look the same until the first average, which may be hundreds of steps away.
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path

from torchvitals.hooks.code_facts import MOST_FILES, own_files
from torchvitals.hooks.source import tree

NONE, POSSIBLE, PLAIN = 0, 1, 2
"""No line could do it; ranks exchange tensors, nobody knows of what; weights are averaged."""

EXCHANGES = frozenset(
    {
        "all_reduce", "all_reduce_coalesced", "reduce_scatter", "reduce_scatter_tensor", "all_gather",
        "all_gather_into_tensor", "all_gather_coalesced", "all_to_all", "all_to_all_single", "send", "recv",
        "isend", "irecv", "batch_isend_irecv", "broadcast", "broadcast_coalesced", "allreduce", "allgather",
    }
)  # fmt: skip
"""Functions that can bring one rank's weights to another; ``reduce`` and ``gather`` mean other things as a rule."""
MEANS = frozenset({"all_reduce", "all_reduce_coalesced", "all_gather", "all_gather_into_tensor", "allreduce"})
"""Those by which weights are averaged; a broadcast in a loop over them is how they are made equal at first."""
NAMED = re.compile(
    r"(param|weight|model)s?_?averag|averag(e|ing|er)s?_?(the_)?(param|weight|model)|local_?sgd|diloco|fed_?avg",
    re.IGNORECASE,
)
"""What such code calls itself; ``AverageMeter`` and ``AveragedModel`` (a mean over time) do not."""
MEASURED = re.compile(
    r"loss|acc|correct|metric|score|count|total|num|seen|samples|tokens|stop|done|flag|mean|perplex|time|seconds|seed",
    re.IGNORECASE,
)
"""Names of what is reduced to be shown, not to be trained with."""
TRAINED = re.compile(r"param|weight|state|flat|model|net\b|vector|buffer|module|\bw\b|\bp\b", re.IGNORECASE)
WHOLE = re.compile(r"parameters|state_dict|to_vector|flatten_dense", re.IGNORECASE)
"""How a tensor of all weights is made, whatever it is called."""
LIBRARIES = re.compile(r"(^|[._])(local_?sgd|diloco|hivemind)", re.IGNORECASE)


@lru_cache(maxsize=1)
def averaging_in_code() -> int:
    """What this job's own code says, looked up once: 10 ms, and as much for each thousand lines with such words."""
    if any(LIBRARIES.search(name) for name in list(sys.modules) if not name.startswith("torch.")):
        return PLAIN
    files = list(islice(own_files(), MOST_FILES + 1))
    whole = 0 < len(files) <= MOST_FILES  # a notebook's code is in no file
    return max(averaging_in(files), NONE if whole else POSSIBLE)


def averaging_in(files: Iterable[Path]) -> int:
    """The same of some ``files``; where one cannot be read it is possible."""
    found = NONE
    for file in files:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            found = POSSIBLE
            continue
        if not (NAMED.search(text) or any(word in text for word in EXCHANGES)):
            continue
        module = tree(str(file))
        if module is None:
            found = POSSIBLE
            continue
        said = averaging_of(module)
        if said == PLAIN:
            return PLAIN
        found = max(found, said)
    return found


def averaging_of(module: ast.AST) -> int:
    """The same of one syntax tree.

    >>> averaging_of(ast.parse("for p in model.parameters(): dist.all_reduce(p.data)"))
    2
    >>> averaging_of(ast.parse("for p in model.parameters(): dist.all_reduce(p.grad)"))
    1
    >>> averaging_of(ast.parse("meter = AverageMeter('loss')"))
    0
    """
    found = NONE
    for node in ast.walk(module):
        if any(NAMED.search(name) for name in _names(node)):
            return PLAIN
        if isinstance(node, ast.For) and _exchanges_each(node):
            return PLAIN
        if isinstance(node, ast.Call) and _called(node) in EXCHANGES and not _measured(node, module):
            found = POSSIBLE
    return found


def _measured(call: ast.Call, module: ast.AST) -> bool:
    """Whether all that is exchanged is a measurement by its name, or by what it was made of."""
    given = [_words(argument) for argument in call.args if not _is_option(argument)]
    return bool(given) and all(_is_measurement(words, module) for words in given)


def _is_measurement(words: set[str], module: ast.AST) -> bool:
    made_of = _made_of(words, module)
    further = _made_of(made_of, module)
    return (_tells(words) or _tells(made_of)) and not any(map(WHOLE.search, words | made_of | further))


def _is_option(argument: ast.expr) -> bool:
    """Whether this is a rank, a group or a ``ReduceOp``, and no tensor."""
    return isinstance(argument, ast.Constant) or any("ReduceOp" in word for word in _words(argument))


def _tells(words: set[str]) -> bool:
    return any(map(MEASURED.search, words)) and not any(map(TRAINED.search, words))


def _words(node: ast.AST) -> set[str]:
    return {name for part in ast.walk(node) for name in _names(part)}


def _made_of(names: set[str], module: ast.AST) -> set[str]:
    """The words of all that is assigned to ``names`` anywhere."""
    words: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id in names for to in node.targets):
            words |= _words(node.value)
    return words


def _names(node: ast.AST) -> Iterator[str]:
    for field in ("id", "attr", "name"):
        name = getattr(node, field, None)
        if isinstance(name, str):
            yield name


def _called(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def _exchanges_each(loop: ast.For) -> bool:
    """Whether what the loop runs over is averaged one by one, and is no gradient."""
    over = {name.id for name in ast.walk(loop.target) if isinstance(name, ast.Name)}
    calls = (node for node in ast.walk(loop) if isinstance(node, ast.Call) and _called(node) in MEANS)
    for argument in (argument for call in calls for argument in call.args):
        parts = list(ast.walk(argument))
        names = {part.id for part in parts if isinstance(part, ast.Name)}
        if names & over and not any(isinstance(part, ast.Attribute) and part.attr == "grad" for part in parts):
            return True
    return False
