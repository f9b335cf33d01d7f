"""Write the pages made from the code: the command line from typer, contributing and changelog from the root."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
COPIED = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
"""Page -> the file at the top of the repository whose text it shows."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site."""
    pages = {"reference/cli.md": command_line_reference()}
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


def localise_links(text: str) -> str:
    """Return text from the top of the repository with its links into docs/ as the site has them."""
    return re.sub(r"\]\(docs/", "](", text)
