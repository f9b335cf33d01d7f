"""The only place where a string becomes code.

Each room of parts (`models`, `methods`, `vlms`, `data`, `unsupervised`) has one dict `name -> "module:builder"` in its
`__init__`. `resolve_builder` turns a name of such a dict, or a user's own `package.module:builder`, into the callable;
`build_part` also checks the options and calls it.

A name that the user types may name any code, and its module is also looked for in the current folder. A name that
stands in a stored file, which somebody may have sent, means a registered part, or a plug-in of a module that the user
trusts by name; see `Origin`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from semicdvl.errors import ConfigError

Builder = Callable[..., Any]
"""What makes a part: a function, or a class."""

MOVED_BUILDERS = {
    "semicdvl.adapt.network:build": "semicdvl.training.self_training.network:build_siam_aerial",
    "semicdvl.vlms.fake:build": "semicdvl.vlms.models.fake:build_fake",
    "vlm_prior": "semicdvl.training.few_labels.network:build_vlm_prior",
}
"""Builders of this package that files on disk name by an earlier place, or that stand above the room of their kind ->
where they are."""


PLUGIN_MARK = "semicdvl_plugin"
"""Attribute that, where it is True, declares a builder to be a plug-in, whatever it is called."""
PLUGIN_MEMBERS = {"model": "forward", "method": "step", "VLM": "segment", "detector": "predict_scores"}
"""Kind of part -> the method by which a class is recognised as one."""
BUILDER_VERBS = ("build", "read")
"""Functions called so, alone or before an underscore, are builders by convention."""


@dataclass(frozen=True)
class Origin:
    """Where a name comes from: the user who runs this command, or a stored file that somebody may have sent.

    Attributes:
        file: the stored file that holds the name; None: the user gave it.
        trust: modules whose plug-ins a stored file may name; a module's submodules are trusted with it.
    """

    file: Path | None = None
    trust: tuple[str, ...] = ()


USER = Origin()


def list_trusted(trust: str | Sequence[str]) -> tuple[str, ...]:
    """Return what the user trusts as a tuple; one name may be given as a text."""
    return (trust,) if isinstance(trust, str) else tuple(trust)


def suggest_nearest(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the known name closest to `name`, or the empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def resolve_builder(kind: str, name: str, table: Mapping[str, str], *, origin: Origin = USER) -> Callable[..., Any]:
    """Return the builder called `name`.

    Args:
        kind: what is looked up, for the error text ("model", "VLM", ...).
        name: a key of `table`, or `package.module:builder` for code outside this package.
        table: the room's dict of `name -> "module:builder"`.
        origin: who names it. The user may name any code, a stored file what is registered and trusted plug-ins.

    Raises:
        ConfigError: the name is unknown (the nearest known one is suggested), the module cannot be imported, what it
            holds does not tell its options, or a stored file names code that the user does not trust, or that is not a
            plug-in.
    """
    is_foreign = origin.file is not None and not (name in MOVED_BUILDERS or name in table or name in table.values())
    if is_foreign and ":" in name:
        _require_consent(kind, name, origin)
    module, attribute = _import_module(kind, name, table, origin=origin)
    builder = getattr(module, attribute, None)
    if is_foreign and not _is_plugin(kind, builder, module.__name__):
        raise ConfigError(
            f"{origin.file}: names the {kind} '{name}', which is not a plug-in. A stored file may name a function of "
            f"that module called build, read, build_... or read_..., a class of a {kind}, or what has the attribute "
            f"{PLUGIN_MARK} = True."
        )
    if builder is None and name not in table:
        found = f"module {module.__name__} has no '{attribute}'"
        raise ConfigError(f"{kind} '{name}' cannot be imported ({found}); write it as package.module:builder.")
    if not callable(builder):
        raise ConfigError(f"{kind} '{name}' is not callable; write it as package.module:builder.")
    try:
        inspect.signature(builder)
    except ValueError as error:  # some compiled functions and types
        found = f"{kind} '{name}' does not tell its options ({error})"
        raise ConfigError(f"{found}. Name a function of Python that calls it.") from None
    result: Callable[..., Any] = builder
    return result


def _require_consent(kind: str, name: str, origin: Origin) -> None:
    """Refuse the name of foreign code in a stored file unless the user trusts its module; nothing is imported.

    Raises:
        ConfigError: the module is not trusted, or never holds plug-ins.
    """
    module_name = name.partition(":")[0]
    package = module_name.partition(".")[0]
    found = f"{origin.file}: names the {kind} '{name}'"
    if package in sys.stdlib_module_names or package in sys.builtin_module_names:
        raise ConfigError(f"{found}, which belongs to Python itself. Do not use this file: it has been tampered with.")
    if package == "semicdvl":
        raise ConfigError(f"{found}, which semicdvl does not offer as a {kind}. Correct the name in the file.")
    if not any(module_name == one or module_name.startswith(f"{one}.") for one in origin.trust):
        raise ConfigError(
            f"{found}, which is not part of semicdvl. Using it runs the code of the module '{module_name}'. If you "
            f"know and trust that module, give --trust {module_name} (in Python: trust=('{module_name}',))."
        )


def _is_plugin(kind: str, builder: Any, module_name: str) -> bool:
    """Tell whether what a trusted module holds is declared to be a plug-in: it is its own, and called or marked so."""
    home = getattr(builder, "__module__", None) or ""
    if home != module_name and not home.startswith(f"{module_name}."):
        return False  # such as a function of another module that this one only imports
    if getattr(builder, PLUGIN_MARK, False) is True:
        return True
    if inspect.isclass(builder):
        return callable(getattr(builder, PLUGIN_MEMBERS.get(kind, ""), None))
    return inspect.isfunction(builder) and builder.__name__.partition("_")[0] in BUILDER_VERBS


def _import_module(kind: str, name: str, table: Mapping[str, str], *, origin: Origin = USER) -> tuple[ModuleType, str]:
    """Import the module of a builder; return it and the builder's name in it."""
    target = table.get(name, MOVED_BUILDERS.get(name, name if ":" in name and name[0] != "." else None))
    if target is None:
        raise ConfigError(f"unknown {kind} '{name}'.{suggest_nearest(name, table)} Known: {', '.join(sorted(table))}.")
    module_name, _, attribute = target.partition(":")
    by_user = target == name and origin.file is None
    try:
        with _search_current_folder() if by_user else nullcontext():
            return importlib.import_module(module_name), attribute
    except (ImportError, ValueError) as error:  # ValueError: an empty name, such as that of ":build"
        if target != name:  # a fault of this package, or of an optional one that its module needs
            raise
        found = (
            f"{kind} '{name}' cannot be imported ({error}); {_advise_on_import(error, module_name, by_user=by_user)}"
        )
        raise ConfigError(found) from None


def _advise_on_import(error: Exception, module_name: str, *, by_user: bool) -> str:
    """Return what to do about a module that cannot be imported."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing is not None and missing != module_name and not module_name.startswith(f"{missing}."):
        return f"the module needs '{missing}'. Install it, or add its folder to the environment variable PYTHONPATH."
    place = "Start in its folder, or add" if by_user else "Of a stored file it is not looked for in this folder: add"
    return f"write it as package.module:builder. {place} the module's folder to the environment variable PYTHONPATH."


@contextmanager
def _search_current_folder() -> Iterator[None]:
    """Add the current folder to the end of the import path while the block runs."""
    folder = str(Path.cwd())
    if folder in sys.path or "" in sys.path:
        yield
        return
    sys.path.append(folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)


def list_options(kind: str, name: str, table: Mapping[str, str], *, origin: Origin = USER) -> tuple[str, ...]:
    """Return the names of the options that a builder takes. Arguments and errors as `resolve_builder`."""
    return tuple(inspect.signature(resolve_builder(kind, name, table, origin=origin)).parameters)


def build_part(
    kind: str, name: str, table: Mapping[str, str], options: Mapping[str, Any], *, origin: Origin = USER
) -> Any:
    """Build a part by name; an option that its builder does not know is refused.

    Args:
        kind: what is built, for the error text.
        name: as in `resolve_builder`.
        table: as in `resolve_builder`.
        options: arguments of the builder; words of a command line become numbers and truth values by its annotations.
        origin: as in `resolve_builder`.

    Raises:
        ConfigError: unknown name or option, or a value that the builder refuses.
    """
    builder = resolve_builder(kind, name, table, origin=origin)
    known = [key for key in inspect.signature(builder).parameters if key != "name"]
    for key in options:
        if key not in known:
            raise ConfigError(
                f"{kind} '{name}' has no option '{key}'.{suggest_nearest(key, known)} Known: {', '.join(known)}."
            )
    try:
        return builder(**_convert_options(f"{kind} '{name}'", builder, options))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{kind} '{name}' cannot be built from {dict(options)}: {error}") from error


def _convert_options(what: str, builder: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of the types that their builder's annotations name.

    Raises:
        ConfigError: a value is not of its option's type.
    """
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

    converted = dict(options)
    try:
        parameters = inspect.signature(builder, eval_str=True).parameters
    except NameError:  # an annotation that is there for type checkers alone
        return converted
    for key in options.keys() & {name for name, one in parameters.items() if one.annotation is not one.empty}:
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(
                parameters[key].annotation, config=ConfigDict(arbitrary_types_allowed=True)
            )
            converted[key] = adapter.validate_python(options[key])
        except PydanticUserError:  # a type that brings its own rules
            continue
        except ValidationError as error:
            raise ConfigError(f"{what}, {key} = {options[key]!r}: {error.errors()[0]['msg']}.") from error
    return converted


def parse_assignments(texts: Iterable[str], *, option: str, named: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Parse `key=value` options of a builder, which refuses those that it does not know.

    Args:
        texts: `key=value`; a value is read as TOML (numbers, true, false, lists), and as text where it is none.
        option: the option of the command line that they come from, for the error text.
        named: options that have a place of their own on the command line; None: not given.

    Raises:
        ConfigError: an entry is no `key=value`, or repeats an option.
    """
    options = {key: value for key, value in (named or {}).items() if value is not None}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key or not value:
            raise ConfigError(f"{option} {text}: must be key=value, such as threshold=0.4.")
        if key in options:
            raise ConfigError(f"{option} {text}: '{key}' is given twice. Give it once.")
        try:
            options[key] = tomllib.loads(f"value = {value}")["value"]
        except (ValueError, RecursionError):
            options[key] = value
    return options


def register_builder(kind: str, name: str, builder: Builder | str, table: dict[str, str]) -> None:
    """Add a part to a table of this process, under a name of its own.

    The table keeps the builder's import path, so that a name means code in one way only. A function or class of a
    notebook or script is found as `__main__:builder`.

    Args:
        kind: what is registered, for the error text ("model", "VLM", ...).
        name: a name that the table does not hold yet.
        builder: a function or class at the top level of a module, or its import path `package.module:builder`.
        table: the room's dict of `name -> "module:builder"`.

    Raises:
        ConfigError: the name is taken or not usable, or the builder cannot be found by an import path.
    """
    if not name or ":" in name:
        raise ConfigError(f"{kind} '{name}' cannot be registered: give a name of at least one character, without ':'.")
    if name in table:
        raise ConfigError(f"{kind} '{name}' is registered already, as {table[name]}. Choose another name.")
    if not isinstance(builder, str):
        path = f"{builder.__module__}:{builder.__qualname__}"
        if getattr(sys.modules.get(builder.__module__), builder.__qualname__, None) is not builder:
            raise ConfigError(
                f"{kind} '{name}' cannot be registered: {path} is not at the top level of its module. "
                "Define the builder there, or give its import path as package.module:builder."
            )
        builder = path
    resolve_builder(kind, builder, {})
    table[name] = builder
