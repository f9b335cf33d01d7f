"""Methods: how a batch becomes a loss. One file per paper, one frozen dataclass of settings per method.

`step(model, teacher, labelled, unlabelled, progress)` returns named loss terms, already weighted: their sum is the loss
and the dict is the log. A method is handed a network and never imports one. Its base class is `types.Method`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from semicdvl.errors import ConfigError
from semicdvl.registry import build_part

if TYPE_CHECKING:
    from semicdvl.types import Method

METHODS: dict[str, str] = {
    "supervised": "semicdvl.methods.supervised:Supervised",
    "fixmatch": "semicdvl.methods.fixmatch:FixMatch",
    "semicd_vl": "semicdvl.methods.semicd_vl:SemiCDVL",
    "unimatch": "semicdvl.methods.unimatch:UniMatch",
    "semicd": "semicdvl.methods.semicd:SemiCD",
    "semicdnet": "semicdvl.methods.semicdnet:SemiCDNet",
    "advent": "semicdvl.methods.advent:Advent",
    "s4gan": "semicdvl.methods.s4gan:S4GAN",
    "semivl": "semicdvl.methods.semivl:SemiVL",
    "mean_teacher": "semicdvl.methods.mean_teacher:MeanTeacher",
    "unimatch_v2": "semicdvl.methods.unimatch_v2:UniMatchV2",
    "unimatch_vl": "semicdvl.methods.guided:UniMatchVL",
    "unimatch_v2_vl": "semicdvl.methods.guided:UniMatchV2VL",
}
"""Name -> class. Adding a method takes one file and one line here."""


def list_methods() -> tuple[str, ...]:
    """List the names of the training methods that `create_method` and the recipes know.

    Examples:
        >>> import semicdvl as cd
        >>> "semicd_vl" in cd.list_methods()
        True
    """
    return tuple(METHODS)


def create_method(name: str, **options: Any) -> Method:
    """Build a training method by its name.

    Args:
        name: a name of `list_methods()`, or `package.module:Class` for a method of your own, a subclass of
            `types.Method`.
        options: its fields, which are the keys of a recipe's `[method]` section.

    Returns:
        Method: its `step` turns a batch into named, weighted loss terms.

    Raises:
        ConfigError: an unknown name or option, a value out of range, or a class that is no method.

    Examples:
        >>> import semicdvl as cd
        >>> method = cd.create_method("fixmatch", confidence_min=0.9)
        >>> method.uses_unlabelled, sorted(method.heads)
        (True, ['change'])
    """
    from semicdvl.types import Method

    method = build_part("method", name, METHODS, options)
    if not isinstance(method, Method):
        raise ConfigError(f"method '{name}' is no training method. Derive its class from semicdvl.types.Method.")
    return method
