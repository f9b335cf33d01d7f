"""Two rasters and a VLM -> a trained run of this place, without a label.

    RUN/                       a run as `semicdvl train` writes it
    RUN/adapt/adapt.json       from what the patches were cut
    RUN/adapt/patches/         the patches; RUN/adapt/store/ the VLM's answers and labels

Everything can be interrupted and goes on when it is started again.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rasterio
from rich.console import Console

from semicdvl.atomic_files import key_of, read_json, write_json
from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.prompts import Prompts
from semicdvl.checkpoint import build_network
from semicdvl.config import Recipe, parse_recipe
from semicdvl.detection.output_folder import refuse_foreign
from semicdvl.detection.pair_check.check import open_checked, warnings_left
from semicdvl.detection.pipeline import CACHE_BYTES, DetectResult, DetectSettings, detect, network_detector
from semicdvl.detection.results import inputs_of
from semicdvl.errors import OutputError
from semicdvl.pseudo_labels.generate import spec_of
from semicdvl.raster.io.inputs import Given
from semicdvl.training.run import train
from semicdvl.training.run_record import HOME, TrainedRun
from semicdvl.training.self_training.config import AdaptSettings
from semicdvl.training.self_training.labels import Taught, teach
from semicdvl.training.self_training.patches import cells_of, cut, side_of, write_list
from semicdvl.types import VLM, PairFiles

FORMAT = "semicdvl-adapt"
FEW_FRAC = 0.7
"""Share of labelled pixels below which the user is warned: 0.88 and more on the made-up cities, 0.42 to 0.63 on three
tiles of LEVIR-CD, where adapting does not help (`docs/adapt.md`)."""


@dataclass(frozen=True)
class Adapted:
    """What came out.

    Attributes:
        run: the trained run.
        taught: the patches and what their labels cover.
        trained: what training ended with.
        warnings: what a user of the pair should know.
        command: the command that comes next.
    """

    run: Path
    taught: Taught
    trained: TrainedRun
    warnings: tuple[str, ...]
    command: str

    @property
    def summary(self) -> str:
        """All of that in a few lines."""
        taught = self.taught
        lines = [
            f"learnt from {len(taught.pairs)} patches, {taught.with_change} of them with change: "
            f"{taught.reliable_frac:.1%} of the pixels have a label, {taught.changed_frac:.2%} say changed",
            f"trained for {self.trained.fitted.best_step} steps in {self.trained.seconds:.0f} s, without a true label: "
            "how good it is, only a check can tell (`semicdvl evaluate OUT --truth`)",
            *(f"note: {warning}" for warning in (*self.warnings, *self._few_labels())),
            f"weights and record: {self.run}",
            f"next: {self.command}",
        ]
        return "\n".join(lines)

    def _few_labels(self) -> tuple[str, ...]:
        """Warn where much of the ground taught nothing."""
        if self.taught.reliable_frac >= FEW_FRAC:
            return ()
        return (
            f"Only {self.taught.reliable_frac:.0%} of the pixels have a label; change on the others was not learnt. "
            "Often no word fits the ground (bare soil): name it with --background road,grass,tree,water,soil, or take "
            "--level instance. Compare with `semicdvl detect` without a model.",
        )


def adapt(
    before: Given,
    after: Given,
    run: Path,
    *,
    vlm: VLM,
    prompts: Prompts,
    ceg: CEGSettings,
    settings: AdaptSettings | None = None,
    console: Console | None = None,
) -> Adapted:
    """Train a network on a pair with what a VLM says about it; no label is needed, and none is looked at.

    Args:
        before: date 1, see `raster.io.inputs.named`.
        after: date 2.
        run: run directory to write; what an interrupted adaptation left there is gone on with.
        vlm: who is asked.
        prompts: what to look for.
        ceg: how answers become labels.
        settings: see `AdaptSettings`.
        console: where progress is shown; standard error unless given.

    Raises:
        InputError: an image cannot be used, or there is no ground with data in both dates.
        ConfigError, MissingExtraError: the network cannot be built.
        DataError: the images are too small, or the VLM finds no change at all.
        OutputError: `run` holds the adaptation of another pair, or cannot be written.
        CheckpointError: `run` holds something else, or a run with other settings.
        DivergedError: the loss is not a number.
    """
    settings, run, console = settings or AdaptSettings(), Path(run), console or Console(stderr=True)
    home = run / HOME
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        pair, checked, left = open_checked(before, after, **settings.reading())
        with pair:
            warnings = (*pair.notes, *warnings_left(checked, pair.move, left))
            gsd_m, side = settings.gsd_m or pair.gsd_m, side_of(pair, settings.patch_px)
            recipe = recipe_of(run, settings, side_px=side)
            build_network(recipe.model.model_dump())  # what is wrong with it shows now, and not after hours of a VLM
            cut_from = {"inputs": inputs_of(pair), "reading": settings.reading(), "cut": [side, settings.patches]}
            spec = spec_of(vlm, prompts=prompts, settings=ceg, gsd_m=gsd_m)
            _begin(run, cut_from, asked=asdict(spec))
            cells = cells_of(*pair.shape_hw, side_px=side, most=2 * settings.patches)
            enough = settings.min_valid_frac
            pairs = cut(pair, cells, home / "patches", side_px=side, min_valid_frac=enough, console=console)
    taught = _taught(pairs, home, vlm=vlm, prompts=prompts, ceg=ceg, gsd_m=gsd_m, most=settings.patches)
    trained = train(recipe, run, quiet=console.quiet)
    return Adapted(run, taught, trained, warnings, next_command(before, after, run, settings))


def detect_with(adapted: Adapted, before: Given, after: Given, out: Path, *, settings: AdaptSettings) -> DetectResult:
    """Find change in the pair with the network that was adapted to it, read as it was for training."""
    detector = network_detector(adapted.run, device=settings.device)
    return detect(before, after, out, detector=detector, settings=DetectSettings(**settings.reading()))


def refuse_out(out: Path | None, run: Path) -> None:
    """See, before anything is trained, that a result can be written.

    Raises:
        OutputError: it holds other things, or is the run directory.
    """
    if out is None:
        return
    if out.resolve() == run.resolve():
        raise OutputError(f"{out}: the run and the result need folders of their own. Give another one to --detect.")
    refuse_foreign(out, overwrite=False)


def next_command(before: Given, after: Given, run: Path, settings: AdaptSettings) -> str:
    """Return the command that finds change with the run, reading the pair as it was read for training."""
    words = ["semicdvl", "detect", str(before), str(after), "-o", f"{run}-out", "--model", str(run)]
    for name, given in (("--bands", settings.bands), ("--after-bands", settings.after_bands)):
        words += [] if given is None else [name, ",".join(map(str, given))]
    words += ["--grid", settings.grid] if settings.grid != "before" else []
    words += ["--normalise", settings.normalise] if settings.normalise != "none" else []
    return shlex.join([*words, *(["--align"] if settings.align else [])])


# ------------------------------------------------------------------------------------------------ parts
def _begin(run: Path, cut_from: dict[str, Any], *, asked: dict[str, Any]) -> None:
    """Mark the run's scratch as that of this pair, or refuse one of another.

    What the VLM is asked may change as long as nothing was trained: its answers to other words are kept apart.

    Raises:
        OutputError: `run` is a file, the scratch is of another pair, or the training was of other labels.
    """
    path, key, question = run / HOME / "adapt.json", key_of(FORMAT, cut_from), key_of(asked)
    if path.is_file():
        known = read_json(path, remedy="Give a new folder with -o")
        if not isinstance(known, dict) or known.get("key") != key:
            raise OutputError(
                f"{run}: holds the adaptation to other images, or to these read or cut in another way. "
                "Give a new folder with -o."
            )
        if known.get("question") != question and (run / "run.json").exists():
            raise OutputError(
                f"{run}: was trained with labels of another VLM, other words or other thresholds. "
                "Give a new folder with -o."
            )
    elif run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise OutputError(f"{run}: exists and was not made by `semicdvl adapt`. Give a new folder with -o.")
    write_json(path, {"format": FORMAT, "key": key, "question": question, **cut_from, "asked": asked})


def _taught(pairs: tuple[PairFiles, ...], home: Path, *, most: int, **asked: Any) -> Taught:
    """Ask the VLM, choose patches and write their list."""
    taught = teach(pairs, store=home / "store", most=most, **asked)
    write_list(home / "patches", taught.pairs)
    return taught


def recipe_of(run: Path, settings: AdaptSettings, *, side_px: int) -> Recipe:
    """Return the recipe of an adaptation: the semi-supervised engine with an empty labelled set."""
    own = settings.backbone == "aerial"
    content = {
        "name": run.resolve().name,
        "seed": settings.seed,
        "data": {
            "root": str(run / HOME / "patches"),
            "labelled": 0,
            "val_frac": 0,
            "test_frac": 0,
            "crop_px": min(settings.crop_px, side_px),
            "rot90": True,
            "vflip": 0.5,
        },
        "pseudo": {"store": str(run / HOME / "store")},
        "model": OWN if own else OTHER | {"backbone": settings.backbone, "pretrained": settings.pretrained},
        "method": METHOD,
        "train": {
            **(OWN_RATES if own else OTHER_RATES),
            "optimizer": "adamw",
            "select": "last",  # there is no true label to select by
            "steps": settings.steps,
            "eval_every": max(1, settings.steps // 6),  # there is nothing to evaluate: how often the state is kept
            "unlabelled_batch": settings.batch,
            "device": settings.device,
        },
    }
    return parse_recipe(content, source="adapt")


OWN, OWN_RATES = {"name": "semicdvl.training.self_training.network:build"}, {"lr": 0.0002, "head_lr_multiplier": 10}
"""The embedded model's network, which has seen the ground from above: it is changed little, its new heads are not."""
OTHER, OTHER_RATES = {"name": "siam_light", "decoder_channels": 96}, {"lr": 0.0005, "head_lr_multiplier": 4}
METHOD = {
    "name": "semicd_vl",
    "dual_head": False,  # the VLM teaches the head that is used: there is nothing else that could
    "lambda_vl": 6.0,
    "lambda_vl_end": 2.0,
    "vlm_over": "valid",
    "vlm_dice_weight": 1.0,  # change is rare, and the VLM misses some of it: cross entropy alone finds too little
    "confidence_min_changed": 0.8,
    "pseudo_start_frac": 0.3,
    "lambda_c": 0.0,
}
