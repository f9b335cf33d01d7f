"""Read a recipe: a TOML file, maybe over a base, or one that is shipped with the package."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from semicdvl.config.overrides import LENGTH_KEYS, apply_override
from semicdvl.config.sections import Recipe
from semicdvl.config.validation import Location, parse_recipe
from semicdvl.errors import ConfigError, InputError
from semicdvl.reading.json_files import check_values
from semicdvl.reading.limits import MAX_NESTING, MAX_RECIPE_BYTES
from semicdvl.reading.regular_files import read_bytes, require_file_or_folder, resolve_links
from semicdvl.registry import suggest_nearest
from semicdvl.text_files import decode_text


def load_recipe(path: str | Path, *, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe.

    A recipe may extend another one: `base = "other.toml"`, a path relative to its own folder, or the name of a shipped
    recipe. Its keys replace those of the base, section by section; a `model` or `method` of another name replaces the
    base's whole section.

    Args:
        path: a TOML file, or the name of a shipped recipe, such as "small-supervised-aerial" (`list_recipes`).
        overrides: `key=value` with a dotted key (`train.steps=500`); a bare key is looked for in every section.

    Returns:
        Recipe: checked and complete, what was not given filled in with its default.

    Raises:
        InputError: the file, or its base, is missing or not TOML.
        ConfigError: a key is unknown or a value does not fit; or recipes extend each other in a circle.

    Examples:
        >>> import semicdvl as cd
        >>> recipe = cd.load_recipe(recipe_toml, overrides=("steps=100", "method.name=fixmatch"))
        >>> recipe.train.steps, recipe.method.name
        (100, 'fixmatch')
    """
    file = find_shipped(Path(path))
    content = read_with_base(file)
    if isinstance(content.get("data"), list):
        raise ConfigError(
            f"{path}: is a suite, which compares several recipes. Run it with `semicdvl benchmark {path}`."
        )
    options: dict[Location, str] = {
        tuple(apply_override(content, override)): f"--set {override}" for override in overrides
    }

    def find_source(location: Location) -> str | None:
        return options.get(location) or find_file_of_key(location, file)

    return parse_recipe(content, source=str(path), find_source=find_source)


def find_file_of_key(location: Location, path: Path) -> str | None:
    """Return the file of a recipe and its bases whose value a key has; None: no file has the key."""
    below: Path | None = path
    while below is not None:
        content = read_toml(below)
        if holds_key(content, location):
            return str(below)
        below = locate_recipe(content["base"], named_in=below) if "base" in content else None
    return None


def holds_key(content: dict[str, Any], location: Location) -> bool:
    """Tell whether a plain recipe has a value of its own for a key."""
    found: Any = content
    for part in location:
        if not isinstance(found, dict) or part not in found:
            return False
        found = found[part]
    return True


def locate_shipped_recipes() -> Path:
    """Return the folder of the shipped recipes: in the package where it is installed, else at the top of the clone."""
    package = Path(__file__).parents[1]
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parents[1] / "recipes"


def list_shipped_recipes() -> dict[str, Path]:
    """Return the shipped recipes and suites: name, which is the path without `.toml`, and file."""
    folder = locate_shipped_recipes()
    paths = sorted(path for path in folder.rglob("*.toml") if path.relative_to(folder).parts[0] != "base")
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}


def find_shipped(path: Path) -> Path:
    """Return a path that exists as it is; otherwise the shipped recipe of that name, with or without `recipes/`."""
    require_file_or_folder(path, remedy="Give a TOML file, or a shipped recipe, see `semicdvl list recipes`")
    if path.exists():
        return path
    return list_shipped_recipes().get(_name_shipped(path), path)


def _name_shipped(path: Path) -> str:
    """Return the name under which a shipped recipe is listed."""
    return path.as_posix().removeprefix("recipes/").removesuffix(".toml")


def read_toml(path: Path) -> dict[str, Any]:
    """Return the plain content of a TOML file.

    Raises:
        InputError: it is missing, no regular file, too large or not TOML.
    """
    advice = "Give a TOML file, or a shipped recipe, see `semicdvl list recipes`"
    hint = _suggest_shipped(path)
    found = read_bytes(path, remedy=f"{advice}.{hint}" if hint else advice, max_bytes=MAX_RECIPE_BYTES)
    try:
        content = tomllib.loads(decode_text(path, found))
        check_values(content, finite=False)
        return content
    except RecursionError as error:
        raise InputError(path, "is nested too deeply to be a recipe", "Correct the file") from error
    except ValueError as error:  # also whole numbers of thousands of digits
        raise InputError(path, f"is not valid TOML ({error})", "Correct the line") from error


def _suggest_shipped(path: Path) -> str:
    """Return which shipped recipe is meant, if one is called alike; a base is looked for in a folder first."""
    known = list_shipped_recipes()
    if (inside := next((name for name in known if name.endswith(f"/{_name_shipped(path)}")), None)) is not None:
        return f" Did you mean '{inside}'?"
    return suggest_nearest(_name_shipped(path), known) or suggest_nearest(_name_shipped(Path(path.name)), known)


def read_with_base(path: Path, *, dependents: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the plain content of a recipe merged over its base; `dependents` are the recipes that extend it."""
    content = read_toml(path)
    base = content.pop("base", None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base = {base!r} is not a path. Give the path of another recipe.")
    chain = (*dependents, resolve_links(path))
    if len(chain) > MAX_NESTING:
        raise ConfigError(
            f"{path}: is the last of over {MAX_NESTING} recipes that extend each other. Merge some of them."
        )
    below = locate_recipe(base, named_in=path)
    if resolve_links(below) in chain:
        raise ConfigError(
            f"{path}: base = '{base}' leads back to a recipe that extends this one. Remove one of the two."
        )
    return merge_recipes(read_with_base(below, dependents=chain), content)


def locate_recipe(name: str | Path, *, named_in: Path) -> Path:
    """Return the recipe that another file names: relative to its folder, or else the shipped one of that name."""
    beside = named_in.parent / name
    require_file_or_folder(beside, remedy=f"Correct the name in {named_in}")
    return beside if beside.exists() else list_shipped_recipes().get(_name_shipped(Path(name)), beside)


def merge_recipes(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return the plain recipe `base` with `changes` merged over it, see `load_recipe`."""
    merged = {key: value for key, value in base.items() if LENGTH_KEYS.get(key) not in changes}
    for key, value in changes.items():
        own = merged.get(key)
        if isinstance(own, dict) and isinstance(value, dict) and not _names_another_part(key, own, value):
            merged[key] = merge_recipes(own, value)
        else:
            merged[key] = value
    return merged


def _names_another_part(key: str, own: dict[str, Any], value: dict[str, Any]) -> bool:
    """Tell whether a model or method section names another one, whose options are not those of the base's."""
    return key in ("model", "method") and "name" in value and value["name"] != own.get("name")
