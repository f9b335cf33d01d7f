"""Write the pages that are made from the code, and those whose text stands at the top of the repository."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel

from semicdvl.benchmarking import config as suites
from semicdvl.catalog import describe_parts, describe_section, format_toml
from semicdvl.config import DataConfig, PseudoConfig, Recipe, TrainConfig
from semicdvl.methods import METHODS
from semicdvl.models import MODELS
from semicdvl.registry import resolve_builder

ROOT = Path(__file__).resolve().parents[2]
COPIED = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
"""Page -> the file at the top of the repository whose text it shows."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site."""
    pages = {"reference/cli.md": command_line_reference(), "reference/recipes.md": recipe_reference()}
    pages |= {page: localise_links((ROOT / source).read_text(encoding="utf-8")) for page, source in COPIED.items()}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def command_line_reference() -> str:
    """Return the reference of all commands and options as Markdown, as typer writes it."""
    command = [sys.executable, "-m", "typer", "semicdvl.cli", "utils", "docs", "--name", "semicdvl"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return spell_out_commands(re.sub(r"^# .*$", "# Command line", text, count=1, flags=re.MULTILINE))


def spell_out_commands(text: str) -> str:
    """Return the reference with a link and the whole first sentence of each command in the lists, which typer cuts."""
    summaries = dict(re.findall(r"^#+ `semicdvl ([^`]+)`\n\n(.+?)\n\n", text, flags=re.MULTILINE | re.DOTALL))
    lines, parent = [], ""
    for line in text.splitlines():
        if heading := re.fullmatch(r"#+ `semicdvl ([^`]+)`", line):
            parent = f"{heading[1]} "
        if (entry := re.fullmatch(r"\* `([\w-]+)`: .*", line)) and (name := parent + entry[1]) in summaries:
            anchor = f"semicdvl-{name}".replace(" ", "-")
            line = f"* [`{entry[1]}`](#{anchor}): {' '.join(summaries[name].split())}"
        lines.append(line)
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------------ recipes and suites
RECIPE_LEAD = """# Recipes and suites

A *recipe* is a TOML file that determines one training (`semicdvl train`), a *suite* one that determines a benchmark
(`semicdvl benchmark`). A key that is not listed here is refused, with the nearest known one. `base = "other.toml"`
takes what a recipe does not say from another file, beside it or shipped (`base = "small-supervised"`);
`--set key=value` on the command line overrides both.

Recipes are shipped for every row of the paper's tables that is known, and small ones for two CPU cores:
`semicdvl list recipes` lists them, `semicdvl train small-supervised-aerial` takes one by its name, and
`semicdvl init DIR` writes a commented one to start from, beside the folders for your images. `semicdvl list
recipe-keys` prints the tables below, which are made from the classes that check recipes.
"""


def recipe_reference() -> str:
    """Return the reference of all keys of recipes and suites, made from the classes that check them."""
    sections = [
        ("## Recipe", Recipe),
        ("### `[data]`", DataConfig),
        ("### `[pseudo]`", PseudoConfig),
        ("### `[train]`", TrainConfig),
        ("## Suite", suites.Suite),
        ("### `[[methods]]`", suites.MethodEntry),
        ("### `[[models]]`", suites.ModelEntry),
        ("### `[[detectors]]`", suites.DetectorEntry),
        ("### `[detectors.ceg]`", suites.ZeroLabelConfig),
        ('### `[[data]]`, `kind = "folder"`', suites.FolderEntry),
        ('### `[[data]]`, `kind = "city"`', suites.CityEntry),
        ('### `[[data]]`, `kind = "real"`', suites.RealEntry),
        ("### `[data.ceg]`", suites.CEGConfig),
    ]
    text = [f"{heading}\n\n{first_sentence(part)}\n\n{list_keys(part)}" for heading, part in sections]
    parts = [
        list_options("### `[model]`", "networks", "models", MODELS),
        list_options("### `[method]`", "methods", "methods", METHODS),
    ]
    return "\n\n".join([RECIPE_LEAD, *text[:4], *parts, *text[4:]]) + "\n"


def first_sentence(part: type[BaseModel]) -> str:
    """Return the first line of a class's docstring."""
    return (inspect.getdoc(part) or "").splitlines()[0]


def list_keys(part: type[BaseModel]) -> str:
    """Return a table of the keys of a section: default and meaning."""
    rows = ["| Key | Default | Meaning |", "|---|---|---|"]
    for one in describe_section("", part):
        default = f"*{one.default}*" if one.default == "required" else f"`{one.default}`" if one.default else ""
        meaning = re.sub(r"\{[^}]*\}", r"`\g<0>`", one.meaning)  # braces are attributes else
        rows.append(f"| `{one.key}` | {default} | {meaning} |")
    return "\n".join(rows)


def format_option(option: inspect.Parameter) -> str:
    """Return an option with its default, where it has one."""
    has_default = option.default is not option.empty and option.default is not None
    return f"`{option.name} = {format_toml(option.default)}`" if has_default else f"`{option.name}`"


def list_options(heading: str, what: str, kind: str, table: dict[str, str]) -> str:
    """Return a table of the parts of a kind with the options that a recipe can set."""
    rows = ["| `name` | What it is | Options and their defaults |", "|---|---|---|"]
    for name, description in describe_parts(kind):
        parameters = inspect.signature(resolve_builder(kind, name, table)).parameters.values()
        options = ", ".join(format_option(one) for one in parameters)
        rows.append(f"| `{name}` | {description} | {options} |")
    lead = f"The other keys of this section are the options of the one that is named. The {what}:"
    return "\n\n".join([heading, lead, "\n".join(rows)])


def localise_links(text: str) -> str:
    """Return text from the top of the repository with its links into docs/ as the site has them."""
    return re.sub(r"\]\(docs/", "](", text)
