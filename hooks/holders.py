"""Who holds this object? The variable, global, attribute, closure or cache, in words a person can search for.

Local variables are compared frame by frame; everything else is found by the garbage collector's referrers,
followed upwards until something has a name. A call of ``gc.get_referrers`` looks at every object of the
process, some 10 ms, so their number is bounded.
"""

import functools
import gc
import sys
import time
from collections import ChainMap, deque
from collections.abc import Iterator, Mapping
from types import CellType, FrameType, FunctionType, ModuleType
from typing import Any, NamedTuple

import torch
from torchvitals.hooks.census import frames
from torchvitals.hooks.growth_line import growth_line, registration_line, use_line
from torchvitals.hooks.length_limit import length_limit
from torchvitals.hooks.source import Line, is_user_file, locals_of, of_library, short

_CONTAINERS = (list, dict, set, tuple, deque)
_PASSED = (*_CONTAINERS, CellType)
_MOST_WORDS = 3
_MOST_LOOKS = 16
"""Calls of ``gc.get_referrers`` per search."""
_OURS = "torchvitals."


class Holder(NamedTuple):
    """A place with a name."""

    text: str
    """As ``list `losses` in main``."""
    line: Line
    ours: bool = False
    """It belongs to torchvitals itself."""
    limit: int | None = None
    """The length at which its own code stops its growth."""


class _Owner(NamedTuple):
    words: str
    name: str
    files: list[str]
    function: str = ""
    line: Line = Line()
    ours: bool = False
    scope: Mapping[str, Any] = {}
    """What the code around it can see."""
    within: tuple[str, ...] = ()
    """The function or the classes of that code; empty for a whole module."""


def find_holder(thing: Any, deadline: float, ignore: set[int]) -> Holder | None:
    """Who holds ``thing``; ``None`` if nothing with a name does, or the time is over.

    Args:
        thing: a container or an object.
        deadline: of ``time.thread_time()``.
        ignore: ids of containers of the caller's that hold ``thing``, too.
    """
    waiting: deque[tuple[Any, str]] = deque([(thing, _word(thing))])
    ignore = ignore | {id(waiting)}
    seen = {id(thing)}
    for _ in range(_MOST_LOOKS):
        if not waiting or time.thread_time() > deadline:
            break
        child, words = waiting.popleft()
        owner = _in_frames(child)
        referrers = [] if owner is not None else _referrers(child, ignore)
        if owner is None:
            owner = next((found for parent in referrers if (found := _owner(parent, child)) is not None), None)
        if owner is not None:
            return _holder(owner, words, thing, child)
        for parent in referrers:
            if id(parent) not in seen and (isinstance(parent, _PASSED) or _has_attributes(parent)):
                seen.add(id(parent))
                waiting.append((parent, _inside(words, child, parent)))
        del referrers
    return None


def _holder(owner: _Owner, words: str, thing: Any, child: Any) -> Holder:
    """``child`` is what the owner holds by its name: ``thing`` itself, or what it lies in."""
    line = owner.line if owner.line.file else growth_line(owner.files, owner.name, owner.function)
    limit = None
    if isinstance(thing, deque) and thing.maxlen is not None:
        limit = thing.maxlen
    elif child is thing and isinstance(thing, _CONTAINERS):
        limit = length_limit(owner.files, owner.name, owner.scope, len(thing), owner.within)
    return Holder(f"{words} {owner.words}".strip(), line, owner.ours, limit)


def _inside(words: str, child: Any, parent: Any) -> str:
    """``list inside dict``; links of a chain, and cells, which nobody sees, are passed over."""
    if isinstance(parent, CellType) or type(parent) is type(child) or words.count(" inside ") == _MOST_WORDS:
        return words
    return f"{words} inside {_word(parent)}"


def _word(thing: Any) -> str:
    return type(thing).__name__


def _referrers(thing: Any, ignore: set[int]) -> list[Any]:
    found = gc.get_referrers(thing)
    return [parent for parent in found if id(parent) not in ignore and not isinstance(parent, (FrameType, Iterator))]


# -- local variables ------------------------------------------------------------------------------


def user_files() -> list[str]:
    """Files of the job that are running now, the innermost first."""
    files = (frame.f_code.co_filename for frame in frames())
    return list(dict.fromkeys(file for file in files if is_user_file(file)))


def _in_frames(thing: Any) -> _Owner | None:
    for frame in frames():
        if frame.f_code.co_name == "<module>":
            continue  # its variables are globals
        name = next((name for name, value in locals_of(frame).items() if value is thing), None)
        if name is not None and not (name == "self" and not isinstance(thing, _CONTAINERS)):
            code = frame.f_code
            scope = ChainMap(locals_of(frame), frame.f_globals)
            words, within = f"`{name}` in {code.co_name}", (code.co_name,)
            return _Owner(words, name, [code.co_filename], code.co_name, scope=scope, within=within)
    return None


# -- everything else ------------------------------------------------------------------------------


def _owner(parent: Any, child: Any) -> _Owner | None:
    if type(parent) is dict:
        return _owner_of_dict(parent, child)
    if isinstance(parent, functools._lru_cache_wrapper):
        return _cached_function(parent)
    if isinstance(parent, FunctionType):
        return _default(parent, child)
    if isinstance(child, CellType):
        return _closure(parent, child)
    if isinstance(parent, type):
        return _attribute(parent, dict(parent.__dict__), child)
    if _has_attributes(parent):
        return _attribute(parent, _attributes(parent), child)
    return None


def _owner_of_dict(namespace: dict[Any, Any], child: Any) -> _Owner | None:
    """The owner if ``namespace`` is the ``__dict__`` of a module, a class or an instance."""
    name = next((key for key, value in list(namespace.items()) if value is child and isinstance(key, str)), None)
    if name is None:
        return None
    for parent in gc.get_referrers(namespace):
        if isinstance(parent, ModuleType) and parent.__dict__ is namespace:
            files = _files(parent.__name__)
            script = parent.__name__ == "__main__" and files
            words = f"`{name}` in {short(files[0])}" if script else f"`{name}`, global of {parent.__name__}"
            return _Owner(words, name, files, ours=_is_ours(parent.__name__), scope=namespace)
        if isinstance(parent, type) and parent.__dict__.get(name) is child:
            return _attribute(parent, dict(parent.__dict__), child)
        if not isinstance(parent, (ModuleType, type, FrameType)) and getattr(parent, "__dict__", None) is namespace:
            return _attribute(parent, dict(namespace), child)
    return None


def _attribute(owner: Any, attributes: dict[str, Any], child: Any) -> _Owner | None:
    name = next((name for name, value in attributes.items() if value is child), None)
    if name is None or type(owner) is type(child):  # one link of a chain: whoever holds the chain is meant
        return None
    kind = owner if isinstance(owner, type) else type(owner)
    if "hooks" in name and isinstance(owner, (torch.nn.Module, torch.Tensor, torch.optim.Optimizer)):
        line = registration_line(_hook_files(child), name)
        return _Owner(f"`{name}` of {kind.__name__}: hooks that are never removed", name, [], line=line)
    if isinstance(owner, torch.optim.Optimizer) and (line := registration_line(user_files(), name)).file:
        return _Owner(f"`{name}` of {kind.__name__}: parameters that are never removed", name, [], line=line)
    what = "class attribute" if isinstance(owner, type) else "attribute"
    words = f"{what} `{kind.__name__}.{name}`"
    files, line = [*_files(kind.__module__), *user_files()], _use_of(owner, kind, name)
    scope = ChainMap(attributes, dict(kind.__dict__), vars(sys.modules.get(kind.__module__, sys)))
    within = tuple(base.__name__ for base in kind.__mro__)
    return _Owner(words, name, files, line=line, ours=_is_ours(kind.__module__), scope=scope, within=within)


def _use_of(owner: Any, kind: type, name: str) -> Line:
    """Where the job makes an object of an installed package keep more; no line for an object of the job's own."""
    files = _files(kind.__module__)
    if isinstance(owner, type) or not files or not of_library(files[0]):
        return Line()
    inside = growth_line(files, name)
    own = [file for file in user_files() if not of_library(file)]
    return use_line(own, _names_of(owner), inside) if own and inside.file else Line()


def _names_of(thing: Any) -> set[str]:
    """Variables and attributes that hold ``thing``."""
    found: set[str] = set()
    for holder in [*gc.get_referrers(thing), *map(locals_of, frames())]:
        space = holder if type(holder) is dict else _attributes(holder) if _has_attributes(holder) else {}
        found.update(name for name, value in list(space.items()) if value is thing and type(name) is str)
    return found


def _cached_function(wrapper: Any) -> _Owner:
    function = wrapper.__wrapped__
    code = getattr(function, "__code__", None)
    line = Line(code.co_filename, code.co_firstlineno) if code is not None else Line()
    name = getattr(function, "__qualname__", "a function")
    ours = _is_ours(getattr(function, "__module__", ""))
    return _Owner(f"in the lru_cache of {name}", name, [], line=line, ours=ours)


def _closure(cells: Any, child: CellType) -> _Owner | None:
    """The function whose closure is the tuple ``cells``."""
    for function in gc.get_referrers(cells):
        if isinstance(function, FunctionType) and function.__closure__ is cells:
            code = function.__code__
            name = next(
                free for free, cell in zip(code.co_freevars, function.__closure__, strict=True) if cell is child
            )
            words = f"`{name}` in the closure of {function.__qualname__}"
            return _Owner(words, name, [code.co_filename], code.co_name, ours=_is_ours(function.__module__))
    return None


def _default(function: FunctionType, child: Any) -> _Owner | None:
    if child is not function.__defaults__ and child is not function.__kwdefaults__:
        return None
    line = Line(function.__code__.co_filename, function.__code__.co_firstlineno)
    words = f"of the default arguments of {function.__qualname__}"
    return _Owner(words, "", [], line=line, ours=_is_ours(function.__module__))


def _is_ours(module: str | None) -> bool:
    return (module or "").startswith(_OURS)


def _has_attributes(thing: Any) -> bool:
    return not isinstance(thing, (*_CONTAINERS, type, ModuleType, FunctionType, FrameType, CellType)) and (
        type(thing).__module__ != "builtins"
    )


def _attributes(owner: Any) -> dict[str, Any]:
    """Attributes that are stored, in ``__dict__`` or slots; no property runs."""
    attributes = dict(getattr(owner, "__dict__", None) or {})
    for kind in type(owner).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            member = kind.__dict__.get(name)
            if hasattr(member, "__objclass__") and name not in ("__weakref__", "__dict__"):
                attributes[name] = getattr(owner, name, None)
    return attributes


def _files(module: str) -> list[str]:
    file = getattr(sys.modules.get(module), "__file__", None)
    return [file] if isinstance(file, str) else []


def _hook_files(hooks: Any) -> list[str]:
    codes = [getattr(hook, "__code__", None) for hook in list(hooks.values())[-4:]] if isinstance(hooks, dict) else []
    files = [code.co_filename for code in codes if code is not None]
    return list(dict.fromkeys([*files, *user_files()]))
