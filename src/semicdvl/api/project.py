"""Start a project: a folder with a commented recipe and the places where images and labels go."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from semicdvl.errors import OutputError
from semicdvl.reading.regular_files import resolve_links

START_RECIPE = "small-supervised-aerial"
"""Learns from labels alone, on two CPU cores, and needs no optional package."""
DATA_FOLDERS = {
    "A": "images of date 1",
    "B": "images of date 2, with the same file names and sizes",
    "label": "masks with the same file names: 0 unchanged, 255 changed. A pair without a mask counts as unlabelled",
}
RECIPE_FILE = "recipe.toml"


@dataclass(frozen=True)
class Project:
    """What `create_project` wrote.

    Attributes:
        folder: the project.
        recipe: the recipe in it.
        uses_vlm: whether the recipe needs pseudo-labels of a VLM.
    """

    folder: Path
    recipe: Path
    uses_vlm: bool

    def format_text(self) -> str:
        """Return what was written and the commands that come next."""
        lines = [f"{self.recipe}: what is trained, and how; every line says what it means"]
        lines += [f"{self.folder / 'data' / name}/: {meaning}" for name, meaning in DATA_FOLDERS.items()]
        lines += ["", "next, once your images are there (or `semicdvl prepare` has cut them from rasters into data/):"]
        lines += [f"  cd {shlex.quote(str(self.folder))}"]
        lines += ["  semicdvl pseudo data -o runs/store"] if self.uses_vlm else []
        lines += [f"  semicdvl train {RECIPE_FILE} -o runs/first"]
        lines += ["  semicdvl detect BEFORE.tif AFTER.tif -o out --model runs/first"]
        return "\n".join(lines)


def create_project(folder: str | Path, *, recipe: str = START_RECIPE) -> Project:
    """Write a commented recipe and the folders for the images; what is there already stays.

    Args:
        folder: the project; made if it does not exist.
        recipe: the shipped recipe to start from, see `semicdvl list recipes`.

    Raises:
        InputError: there is no such recipe.
        OutputError: the folder holds a recipe already, or cannot be written.
    """
    from semicdvl.atomic_files import write_atomically
    from semicdvl.config import find_shipped, load_recipe

    home, source = Path(folder), find_shipped(Path(recipe))
    loaded = load_recipe(source)
    target = home / RECIPE_FILE
    if target.exists():
        raise OutputError(f"{target}: is there already. Give another folder, or move it away.")
    try:
        for name in DATA_FOLDERS:
            (home / "data" / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{home}: cannot be written ({error.strerror}). Give another folder.") from error
    with write_atomically(target) as part:
        part.write_text(_adapt_recipe(source), encoding="utf-8")
    return Project(home, target, uses_vlm=loaded.pseudo is not None)


def _adapt_recipe(source: Path) -> str:
    """Return a shipped recipe for a project: its data lie in `data`; a recipe with a base names it by its full path."""
    text = source.read_text(encoding="utf-8")
    replaced = {
        "root": '"data"                # A/, B/ and label/, seen from the folder in which you start `semicdvl`',
        "labelled": "1.0               # share of the labels that are used; a pair without a mask is unlabelled anyway",
        "name": '"first"               # names the run directory, runs/first, where -o does not',
    }
    text = re.sub(r"^#   semicdvl train .*$", f"#   semicdvl train {RECIPE_FILE}", text, flags=re.MULTILINE)
    for key, value in replaced.items():
        text = re.sub(rf"^{key} = .*$", f"{key} = {value}", text, count=1, flags=re.MULTILINE)
    base = re.search(r'^base = "(.*)"$', text, flags=re.MULTILINE)
    if base is not None:
        text = text.replace(base[0], f'base = "{resolve_links(source.parent / base[1]).as_posix()}"')
    lead = (
        "# All keys, their defaults and meanings: `semicdvl list recipe-keys`. Each can be given on the command\n"
        "# line, too: --set train.steps=1000\n"
    )
    first, rest = text.split("\n", 1)
    return f"{first}\n{lead}{rest}"
