"""Which code ran: a digest of each of the job's own files that were loaded, and the commit they were checked out at."""

import hashlib
import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

MOST_FILES = 200
LARGEST_FILE = 1 << 20
"""Source files are smaller; what is larger is generated data."""
_LIBRARIES = tuple(
    str(Path(place)) + os.sep
    for place in {
        *(sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")),
        *site.getsitepackages(),
    }
)
_OURS = str(Path(__file__).resolve().parents[1]) + os.sep


def describe_code() -> dict[str, Any]:
    """``script``, ``files`` (path → 12 hex digits) of code that is in no library, and ``commit`` where there is a git.

    Paths are relative to the script's folder where they can be, so that two check-outs compare. Reads each
    file once: about 50 µs per file.
    """
    script = _script()
    root = script.parent if script is not None else Path.cwd()
    files: dict[str, str] = {}
    for path in own_files():
        digest = _digest(path)
        if digest:
            files[_named(path, root)] = digest
        if len(files) >= MOST_FILES:
            break
    told: dict[str, Any] = {"script": script.name if script is not None else "", "files": files}
    commit = _commit(root)
    return {**told, "commit": commit} if commit else told


def _script() -> Path | None:
    """The file that is being run; ``None`` in a notebook or an interpreter."""
    file = getattr(sys.modules.get("__main__"), "__file__", None) or (sys.argv[0] if sys.argv else "")
    path = Path(file) if file else None
    return path.resolve() if path is not None and path.is_file() else None


def own_files() -> Iterator[Path]:
    """The script and every module loaded from a file that belongs to no library."""
    script = _script()
    if script is not None:
        yield script
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    for file in sorted(file for file in files if isinstance(file, str) and _is_own(file)):
        path = Path(file).resolve()
        if path != script:
            yield path


def _is_own(file: str) -> bool:
    """Whether it is a file of the job; ``torch.ops`` and its like claim a bare name that is no file."""
    return Path(file).is_absolute() and file.endswith(".py") and not file.startswith((*_LIBRARIES, _OURS, "<"))


def _named(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return "/".join(path.parts[-2:])


def _digest(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST_FILE:
            return ""
        return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    except OSError:  # a module made at run time, or a file that is gone
        return ""


def _commit(start: Path) -> str:
    """The commit that is checked out around ``start``, read from git's own files; empty where that is not plain."""
    for folder in (start, *start.parents):
        git = folder / ".git"
        if not git.is_dir():
            continue
        try:
            head = (git / "HEAD").read_text(encoding="utf-8").strip()
            if not head.startswith("ref: "):
                return head[:12]
            return _reference(git, head.removeprefix("ref: "))[:12]
        except OSError:
            return ""
    return ""


def _reference(git: Path, name: str) -> str:
    loose = git / name
    if loose.is_file():
        return loose.read_text(encoding="utf-8").strip()
    packed = git / "packed-refs"
    lines: Iterable[str] = packed.read_text(encoding="utf-8").splitlines() if packed.is_file() else ()
    return next((line.split()[0] for line in lines if line.endswith(f" {name}")), "")
