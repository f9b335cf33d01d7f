"""Options of the vision-language model: which one, and what it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

import semicdvl as cd
from semicdvl.cli.app import ADVANCED, TARGET, out
from semicdvl.registry import parse_assignments

if TYPE_CHECKING:
    from semicdvl import VLM, Prompts


@dataclass(frozen=True)
class PromptOptions:
    """What a vision-language model is asked for."""

    find: Annotated[
        str | None, typer.Option(help="What to look for, in words: house,building", rich_help_panel=TARGET)
    ] = None
    background: Annotated[
        str | None, typer.Option(help="What else is there, in words: road,grass,tree,water", rich_help_panel=TARGET)
    ] = None
    prompts: Annotated[
        str,
        typer.Option(
            "--prompts",
            help="A named set of both: buildings, roads, water, forest, ...; see `semicdvl list prompts`",
            rich_help_panel=TARGET,
        ),
    ] = "buildings"

    def resolve(self, vlm: str) -> Prompts:
        """Return the prompts; say which background is taken where only what to look for was given.

        Args:
            vlm: name of the VLM, which may be known not to know a word.

        Raises:
            ConfigError: it does not, or there is no such set of prompts.
        """
        from semicdvl.vlms import check_prompt_words

        prompts = cd.resolve_prompts(find=self.find, background=self.background, prompt_set=self.prompts)
        with Console(stderr=True).status("loading the words"):  # imports PyTorch, which takes a second or two
            check_prompt_words(vlm, prompts.words)
        if self.find is not None and self.background is None:
            out.print(
                f"Looking for {', '.join(prompts.find)} against {', '.join(prompts.background)}: the other words of "
                f"the prompt set '{self.prompts}'. Give your own with --background, since a VLM assigns every pixel "
                "to one of the words it is given.",
                soft_wrap=True,
            )
        return prompts


@dataclass(frozen=True)
class VLMOptions:
    """Which vision-language model is asked, and how it runs."""

    vlm: Annotated[
        str,
        typer.Option(
            "--vlm",
            help="Vision-language model, see `semicdvl list vlms`; or package.module:builder",
            rich_help_panel=TARGET,
        ),
    ] = "aerial"
    vlm_from: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            "--vlm-from",
            help="Weights of the VLM: a folder, file or hub name; or the folder of precomputed answers",
            rich_help_panel=TARGET,
        ),
    ] = None
    device: Annotated[
        str | None,
        typer.Option(
            help="Device of the VLM: auto, cpu, cuda, cuda:1; by default its own choice", rich_help_panel=ADVANCED
        ),
    ] = None
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Number type that the VLM computes with: auto, float32, bfloat16, float16; aerial also int8",
            rich_help_panel=ADVANCED,
        ),
    ] = None
    vlm_set: Annotated[
        list[str] | None,
        typer.Option(
            "--vlm-set",
            help="Another option of the VLM, key=value: threshold=0.4, sam=DIR",
            rich_help_panel=ADVANCED,
        ),
    ] = None

    def make_builder(self) -> Callable[[], VLM]:
        """Return what builds the VLM, in this process or in a worker.

        Raises:
            ConfigError: an option of the VLM is no `key=value`, or is given twice.
        """
        named = {"weights": self.vlm_from, "device": self.device, "dtype": self.dtype}
        options = parse_assignments(self.vlm_set or (), option="--vlm-set", named=named)
        return partial(cd.create_vlm, self.vlm, **options)
