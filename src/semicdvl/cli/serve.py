"""The command that serves the review page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import semicdvl as cd
from semicdvl.cli.app import ADVANCED, DETECTION, INPUT, OUTPUT, app, out


@app.command(name="serve", rich_help_panel=DETECTION)
def serve_command(
    folder: Annotated[
        Path,
        typer.Argument(help="A result of `detect`, a folder of results, or with --label also a folder of image pairs"),
    ],
    label: Annotated[
        bool, typer.Option("--label", help="Paint labels for a training, in place of reviewing", rich_help_panel=INPUT)
    ] = False,
    before: Annotated[
        str | None, typer.Option(help="Where the image of date 1 is now, if it was moved", rich_help_panel=INPUT)
    ] = None,
    after: Annotated[str | None, typer.Option(help="The same of date 2", rich_help_panel=INPUT)] = None,
    prompts: Annotated[
        str,
        typer.Option(
            help="What proposed labels, and a training on the labels and decisions, look for; see `semicdvl list "
            "prompts`. A training on a map looks for what the map was made with, unless another set is named",
            rich_help_panel=INPUT,
        ),
    ] = "buildings",
    reviewer: Annotated[
        str | None,
        typer.Option(
            help="Your name in the review; by default that of the user of this machine", rich_help_panel=OUTPUT
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(help="Address to listen at; others than 127.0.0.1 let the network in", rich_help_panel=ADVANCED),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen at; 0: any that is free", rich_help_panel=ADVANCED)
    ] = 8765,
    browser: Annotated[
        bool, typer.Option("--browser", help="Open the page in this machine's browser", rich_help_panel=ADVANCED)
    ] = False,
) -> None:
    """Open a page to look at a change map: accept, reject, redraw what was found, or label patches.

    semicdvl serve OUT            one result of `detect`

    semicdvl serve RESULTS        a list of results, as of `detect --pairs`

    semicdvl serve OUT --label    paint labels on the patches that `suggest` recommends
    """
    named = {} if reviewer is None else {"reviewer": reviewer}
    config = cd.ServeConfig(label=label, host=host, port=port, before=before, after=after, prompts=prompts, **named)
    cd.serve(folder, config=config, open_browser=browser, tell=lambda text: out.print(text, soft_wrap=True))
