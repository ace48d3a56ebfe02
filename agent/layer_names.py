"""Names of layers and their activations, as causes speak of them."""

from collections.abc import Mapping
from typing import Any

_LEAVES = ("weight", "bias", "original0", "original1", "weight_g", "weight_v", "weight_orig")


def layer_of(name: str) -> str:
    """The module that a parameter belongs to; a module's own name stays, without the number of the call.

    >>> layer_of("encoder.0.weight"), layer_of("relu#1"), layer_of("head.weight = embed.weight"), layer_of("")
    ('encoder.0', 'relu', 'head', '')
    """
    path = name.split(" = ", maxsplit=1)[0].split("#", maxsplit=1)[0].replace(".parametrizations.weight", "")
    owner, _, leaf = path.rpartition(".")
    return owner if owner and leaf in _LEAVES else path


def activations_of(facts: Mapping[str, Any]) -> dict[str, int]:
    """Class name → number of the activation modules of all models; functional ones are not among them.

    >>> activations_of({"models": [{"activations": {"ReLU": 2}}, {"activations": {"ReLU": 1, "Tanh": 1}}]})
    {'ReLU': 3, 'Tanh': 1}
    """
    return _sum(facts, "activations")


def norms_of(facts: Mapping[str, Any]) -> dict[str, int]:
    """Class name → number of the normalization modules of all models.

    >>> norms_of({})
    {}
    """
    return _sum(facts, "norms")


def _sum(facts: Mapping[str, Any], key: str) -> dict[str, int]:
    total: dict[str, int] = {}
    for model in facts.get("models") or []:
        for name, count in (model.get(key) or {}).items():
            total[name] = total.get(name, 0) + count
    return total
