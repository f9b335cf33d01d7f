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

from semicdvl.atomic_files import hash_values, read_json, write_json
from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.prompts import Prompts
from semicdvl.checkpoint import build_network
from semicdvl.config import Recipe, parse_recipe
from semicdvl.detection.output_folder import check_output_folder
from semicdvl.detection.pair_check.check import collect_remaining_warnings, open_checked_pair
from semicdvl.detection.pipeline import (
    GDAL_CACHE_BYTES,
    DetectionConfig,
    DetectionSummary,
    build_network_detector,
    detect_to_folder,
)
from semicdvl.errors import OutputError
from semicdvl.pseudo_labels.generate import build_store_spec
from semicdvl.raster.io.fingerprint import fingerprint_pair
from semicdvl.raster.io.inputs import ImageInput
from semicdvl.training.run import train
from semicdvl.training.run_record import SELF_TRAINING_FOLDER, TrainedRun
from semicdvl.training.self_training.config import AdaptSettings
from semicdvl.training.self_training.labels import LabelledPatches, label_patches
from semicdvl.training.self_training.patches import choose_patch_size, cut_pair_patches, place_patches, write_train_list
from semicdvl.types import VLM, PairFiles

FORMAT = "semicdvl-adapt"
FEW_LABELS_FRAC = 0.7
"""Share of labelled pixels below which the user is warned: 0.88 and more on the made-up cities, 0.42 to 0.63 on three
tiles of LEVIR-CD, where adapting does not help (`docs/guides/self-training.md`)."""


@dataclass(frozen=True)
class AdaptResult:
    """What came out.

    Attributes:
        run: the trained run.
        patches: the patches and what their labels cover.
        training: what training ended with.
        warnings: what a user of the pair should know.
        command: the command that comes next.
    """

    run: Path
    patches: LabelledPatches
    training: TrainedRun
    warnings: tuple[str, ...]
    command: str

    @property
    def summary(self) -> str:
        """All of that in a few lines."""
        taught = self.patches
        lines = [
            f"learnt from {len(taught.pairs)} patches, {taught.with_change} of them with change: "
            f"{taught.reliable_frac:.1%} of the pixels have a label, {taught.changed_frac:.2%} say changed",
            f"trained for {self.training.fit_result.best_step} steps in {self.training.seconds:.0f} s, without a true label: "
            "how good it is, only a check can tell (`semicdvl evaluate OUT --truth`)",
            *(f"note: {warning}" for warning in (*self.warnings, *self._warn_of_few_labels())),
            f"weights and record: {self.run}",
            f"next: {self.command}",
        ]
        return "\n".join(lines)

    def _warn_of_few_labels(self) -> tuple[str, ...]:
        """Warn where much of the ground taught nothing."""
        if self.patches.reliable_frac >= FEW_LABELS_FRAC:
            return ()
        return (
            f"Only {self.patches.reliable_frac:.0%} of the pixels have a label; change on the others was not learnt. "
            "Often no word fits the ground (bare soil): name it with --background road,grass,tree,water,soil, or take "
            "--level instance. Compare with `semicdvl detect` without a model.",
        )


def adapt(
    before: ImageInput,
    after: ImageInput,
    run: Path,
    *,
    vlm: VLM,
    prompts: Prompts,
    ceg: CEGSettings,
    settings: AdaptSettings | None = None,
    console: Console | None = None,
) -> AdaptResult:
    """Train a network on a pair with what a VLM says about it; no label is needed, and none is looked at.

    Args:
        before: date 1, see `raster.io.inputs.resolve_input`.
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
    home = run / SELF_TRAINING_FOLDER
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES):
        pair, checked, left = open_checked_pair(before, after, **settings.reading_options())
        with pair:
            warnings = (*pair.notes, *collect_remaining_warnings(checked, pair.alignment, left))
            gsd_m, side = settings.gsd_m or pair.gsd_m, choose_patch_size(pair, settings.patch_px)
            recipe = build_adapt_recipe(run, settings, side_px=side)
            build_network(recipe.model.model_dump())  # what is wrong with it shows now, and not after hours of a VLM
            cut_from = {
                "inputs": fingerprint_pair(pair),
                "reading": settings.reading_options(),
                "cut": [side, settings.patches],
            }
            spec = build_store_spec(vlm, prompts=prompts, settings=ceg, gsd_m=gsd_m)
            _claim_folder(run, cut_from, asked=asdict(spec))
            cells = place_patches(*pair.shape_hw, side_px=side, max_patches=2 * settings.patches)
            enough = settings.min_valid_frac
            pairs = cut_pair_patches(
                pair, cells, home / "patches", side_px=side, min_valid_frac=enough, console=console
            )
    taught = _label_and_list_patches(pairs, home, vlm=vlm, prompts=prompts, ceg=ceg, gsd_m=gsd_m, most=settings.patches)
    trained = train(recipe, run, quiet=console.quiet)
    return AdaptResult(run, taught, trained, warnings, build_detect_command(before, after, run, settings))


def detect_with_adapted(
    adapted: AdaptResult, before: ImageInput, after: ImageInput, out: Path, *, settings: AdaptSettings
) -> DetectionSummary:
    """Find change in the pair with the network that was adapted to it, read as it was for training."""
    detector = build_network_detector(adapted.run, device=settings.device)
    return detect_to_folder(
        before, after, out, detector=detector, settings=DetectionConfig(**settings.reading_options())
    )


def check_adapt_output(out: Path | None, run: Path) -> None:
    """See, before anything is trained, that a result can be written.

    Raises:
        OutputError: it holds other things, or is the run directory.
    """
    if out is None:
        return
    if out.resolve() == run.resolve():
        raise OutputError(f"{out}: the run and the result need folders of their own. Give another one to --detect.")
    check_output_folder(out, overwrite=False)


def build_detect_command(before: ImageInput, after: ImageInput, run: Path, settings: AdaptSettings) -> str:
    """Return the command that finds change with the run, reading the pair as it was read for training."""
    words = ["semicdvl", "detect", str(before), str(after), "-o", f"{run}-out", "--model", str(run)]
    for name, given in (("--bands", settings.bands), ("--after-bands", settings.after_bands)):
        words += [] if given is None else [name, ",".join(map(str, given))]
    words += ["--grid", settings.grid] if settings.grid != "before" else []
    words += ["--normalise", settings.normalise] if settings.normalise != "none" else []
    return shlex.join([*words, *(["--align"] if settings.align else [])])


# ------------------------------------------------------------------------------------------------ parts
def _claim_folder(run: Path, cut_from: dict[str, Any], *, asked: dict[str, Any]) -> None:
    """Mark the run's scratch as that of this pair, or refuse one of another.

    What the VLM is asked may change as long as nothing was trained: its answers to other words are kept apart.

    Raises:
        OutputError: `run` is a file, the scratch is of another pair, or the training was of other labels.
    """
    path, key, question = run / SELF_TRAINING_FOLDER / "adapt.json", hash_values(FORMAT, cut_from), hash_values(asked)
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


def _label_and_list_patches(pairs: tuple[PairFiles, ...], home: Path, *, most: int, **asked: Any) -> LabelledPatches:
    """Ask the VLM, choose patches and write their list."""
    taught = label_patches(pairs, store=home / "store", max_patches=most, **asked)
    write_train_list(home / "patches", taught.pairs)
    return taught


def build_adapt_recipe(run: Path, settings: AdaptSettings, *, side_px: int) -> Recipe:
    """Return the recipe of an adaptation: the semi-supervised engine with an empty labelled set."""
    own = settings.backbone == "aerial"
    content = {
        "name": run.resolve().name,
        "seed": settings.seed,
        "data": {
            "root": str(run / SELF_TRAINING_FOLDER / "patches"),
            "labelled": 0,
            "val_frac": 0,
            "test_frac": 0,
            "crop_px": min(settings.crop_px, side_px),
            "rot90": True,
            "vflip": 0.5,
        },
        "pseudo": {"store": str(run / SELF_TRAINING_FOLDER / "store")},
        "model": AERIAL_MODEL
        if own
        else SIAM_LIGHT_MODEL | {"backbone": settings.backbone, "pretrained": settings.pretrained},
        "method": METHOD_SECTION,
        "train": {
            **(AERIAL_RATES if own else SIAM_LIGHT_RATES),
            "optimizer": "adamw",
            "select": "last",  # there is no true label to select by
            "steps": settings.steps,
            "eval_every": max(1, settings.steps // 6),  # there is nothing to evaluate: how often the state is kept
            "unlabelled_batch": settings.batch,
            "device": settings.device,
        },
    }
    return parse_recipe(content, source="adapt")


AERIAL_MODEL, AERIAL_RATES = (
    {"name": "semicdvl.adapt.network:build"},  # as run.json has it, see `registry.MOVED_BUILDERS`
    {"lr": 0.0002, "head_lr_multiplier": 10},
)
"""The embedded model's network, which has seen the ground from above: it is changed little, its new heads are not."""
SIAM_LIGHT_MODEL, SIAM_LIGHT_RATES = (
    {"name": "siam_light", "decoder_channels": 96},
    {"lr": 0.0005, "head_lr_multiplier": 4},
)
METHOD_SECTION = {
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
