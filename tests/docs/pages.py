"""What a page tells its reader to do: the fenced blocks of a Markdown file, as steps that a test can run.

- `console` blocks: the lines that begin with `$ ` are commands, the others are what they print;
- `python` and `toml` blocks with `title="FILE"` are files, other `python` blocks are code that is run;
- a block below `<!-- not run: REASON -->`, and a block of any other language, is only read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FENCE = re.compile(
    r"^(?P<skip><!-- not run: [^\n]+ -->\n+)?"
    r"(?P<indent> *)```(?P<language>\w+)(?P<options>[^\n]*)\n(?P<body>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Command:
    """A command line without its `$ `, and the lines that the page shows below it."""

    line: str
    shown: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """A fenced block that is run: its language, the file that it is written to (or None), and its text."""

    language: str
    file: str | None
    text: str

    def list_commands(self) -> list[Command]:
        """List the commands of a `console` block."""
        commands: list[Command] = []
        for line in self.text.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                commands.append(Command(" ".join(line[2:].split()), ()))
            elif line.strip() and line.strip() != "...":
                commands[-1] = Command(commands[-1].line, (*commands[-1].shown, line))
        return commands


def list_blocks(page: str) -> list[Block]:
    """List the blocks of a page that are run, in their order."""
    blocks = []
    for found in FENCE.finditer(page):
        if found["skip"] or found["language"] not in ("console", "python", "toml"):
            continue
        title = TITLE.search(found["options"])
        text = re.sub(rf"^{found['indent']}", "", found["body"], flags=re.MULTILINE)
        blocks.append(Block(found["language"], title[1] if title else None, text))
    return blocks


def normalise(text: str) -> str:
    """Return a text with one blank between words and `#` for each number: what does not depend on the machine."""
    return re.sub(r"\d[\d,.]*", "#", " ".join(text.split()))
