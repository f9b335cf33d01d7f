"""Two rasters and a VLM -> a trained run of this place, without a label.

    RUN/                       a run as `semicdvl train` writes it
    RUN/adapt/adapt.json       what the patches were cut from
    RUN/adapt/patches/         the patches; RUN/adapt/store/ the VLM's answers and labels
    RUN/adapt/map-.../         at the residual level: the map without labels, which gives the labels of change

Everything can be interrupted; the same command resumes.
"""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import rasterio
from pydantic import BaseModel, Field
from rich.console import Console

from semicdvl.atomic_files import hash_values, leave_nothing_if_refused, write_json
from semicdvl.ceg.config import RESIDUAL_OPTIONS, CEGSettings
from semicdvl.ceg.prompts import PROMPT_SETS, Prompts
from semicdvl.checkpoint import build_network
from semicdvl.detection.config import GDAL_CACHE_BYTES, DetectionConfig, list_reading_words
from semicdvl.detection.detectors.combined import combine_detectors
from semicdvl.detection.detectors.network import build_network_detector
from semicdvl.detection.fingerprint import fingerprint_pair
from semicdvl.detection.output_folder import check_output_folder
from semicdvl.detection.pair_check.check import open_checked_pair
from semicdvl.detection.pipeline import write_detection
from semicdvl.detection.run_record import SavedDetection
from semicdvl.errors import OutputError
from semicdvl.outputs.locks import lock_argument
from semicdvl.pseudo_labels.generate import build_store_spec
from semicdvl.raster.io.inputs import ImageInput
from semicdvl.raster.io.pair_reader import RasterPair
from semicdvl.reading.json_files import read_model
from semicdvl.reading.regular_files import FileStamps, resolve_links
from semicdvl.reports.numbers import format_count
from semicdvl.training.run import train_recipe
from semicdvl.training.run_record import SELF_TRAINING_FOLDER, TrainedRun
from semicdvl.training.self_training.config import AdaptConfig
from semicdvl.training.self_training.labels import LabelledPatches, label_patches
from semicdvl.training.self_training.patches import choose_patch_size, cut_pair_patches, place_patches, write_train_list
from semicdvl.training.self_training.recipe import build_adapt_recipe
from semicdvl.training.self_training.whole_map import map_whole_pair
from semicdvl.types import VLM, Detector
from semicdvl.vlms.aerial.build import build_aerial

FORMAT = "semicdvl-adapt"
FEW_LABELS_FRAC = 0.7
"""Share of labelled pixels below which the user is warned: 0.88 and more on the synthetic cities, 0.42 to 0.63 on three
tiles of LEVIR-CD, where adapting does not help (`docs/guides/self-training.md`)."""


class _AdaptRecord(BaseModel):
    """What adapt.json holds; the names are stored.

    Attributes:
        key: hash of the images and of how they were read and cut.
        question: hash of the VLM, the prompts and the thresholds.
    """

    format: Literal["semicdvl-adapt"]
    key: str = Field(max_length=64)
    question: str | None = Field(None, max_length=64)


@dataclass(frozen=True)
class AdaptResult:
    """The result of an adaptation.

    Attributes:
        run: the trained run.
        patches: the patches and what their labels cover.
        training: the result of the training.
        config: what `adapt` was called with.
        warnings: what a user of the pair should know.
        command: the command that comes next.

    Examples:
        >>> import semicdvl as cd
        >>> adapted = cd.adapt("before.tif", "after.tif", "runs/place")    # doctest: +SKIP
        >>> network = cd.load_detector(adapted.run)                        # doctest: +SKIP
        >>> detector = cd.combine_detectors(cd.create_vlm_detector(), network)    # doctest: +SKIP
        >>> cd.detect("before.tif", "after.tif", detector=detector)        # doctest: +SKIP
    """

    run: Path
    patches: LabelledPatches
    training: TrainedRun
    config: AdaptConfig
    warnings: tuple[str, ...]
    command: str

    @property
    def summary(self) -> str:
        """The result in a few lines."""
        patches, training = self.patches, self.training
        lines = [
            f"trained on {format_count(len(patches.pairs), 'patch', 'patches')}, {patches.with_change} of them with "
            f"change: {patches.reliable_frac:.1%} of the pixels have a label, {patches.changed_frac:.2%} are labelled "
            "as changed",
            f"{format_count(training.fit_result.best_step, 'step')} in {training.seconds:.0f} s, without a true label: "
            "check a sample of the result to learn its accuracy (`semicdvl evaluate OUT --truth`)",
            *(f"note: {warning}" for warning in (*self.warnings, *self._warn_of_few_labels())),
            f"weights and record: {self.run}",
            f"next: {self.command}",
        ]
        return "\n".join(lines)

    def _warn_of_few_labels(self) -> tuple[str, ...]:
        """Warn where much of the ground has no label."""
        if self.patches.reliable_frac >= FEW_LABELS_FRAC:
            return ()
        return (
            f"Only {self.patches.reliable_frac:.0%} of the pixels have a label; nothing was learnt about change on the "
            "others. Often no prompt fits the ground (bare soil): name it with --background "
            "road,grass,tree,water,soil, or take --level instance. Compare with `semicdvl detect` without a model.",
        )


@lock_argument("run")
def adapt_to_pair(
    before: ImageInput,
    after: ImageInput,
    run: Path,
    *,
    vlm: VLM,
    prompts: Prompts,
    ceg: CEGSettings,
    config: AdaptConfig | None = None,
    console: Console | None = None,
) -> AdaptResult:
    """Train a network on a pair with a VLM's pseudo-labels; no true label is needed, and none is read.

    Args:
        before: date 1, see `raster.io.inputs.resolve_input`.
        after: date 2.
        run: run directory to write; an interrupted adaptation in it is resumed.
        vlm: gives the pseudo-labels.
        prompts: what to look for.
        ceg: how the VLM's answers become labels.
        config: see `AdaptConfig`.
        console: where progress is shown; standard error unless given.

    Raises:
        InputError: an image cannot be used, or there is no ground with data in both dates.
        ConfigError, MissingExtraError: the network cannot be built.
        DataError: the images are too small, or the VLM finds no change at all.
        OutputError: `run` holds the adaptation of another pair, or cannot be written.
        CheckpointError: `run` holds something else, or a run with other settings.
        DivergedError: the loss is not a number.
    """
    config, run, console = config or AdaptConfig(), Path(run), console or Console(stderr=True)
    with leave_nothing_if_refused(run, keep=lambda: any((run / SELF_TRAINING_FOLDER / "store").glob("answers/*/*"))):
        return _adapt(before, after, run, vlm=vlm, prompts=prompts, ceg=ceg, config=config, console=console)


def _adapt(
    before: ImageInput,
    after: ImageInput,
    run: Path,
    *,
    vlm: VLM,
    prompts: Prompts,
    ceg: CEGSettings,
    config: AdaptConfig,
    console: Console,
) -> AdaptResult:
    """Adapt a network to a pair, in a folder that is this run's alone; arguments as in `adapt_to_pair`."""
    home = run / SELF_TRAINING_FOLDER
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES):
        checked = open_checked_pair(before, after, config=config.detection)
        with checked.pair as pair:
            stamps = FileStamps.take((*pair.before.files, *pair.after.files))
            warnings = (*pair.notes, *checked.collect_warnings())
            gsd_m, side_px = config.detection.gsd_m or pair.gsd_m, choose_patch_size(pair, config.patch_px)
            recipe = build_adapt_recipe(run, config, side_px=side_px)
            build_network(recipe.model.model_dump())  # a fault of it shows now, and not after hours of a VLM
            spec = build_store_spec(vlm, prompts=prompts, settings=ceg, gsd_m=gsd_m)
            _claim_folder(run, _describe_source(pair, config, side_px=side_px), asked=asdict(spec))
            cells = place_patches(*pair.shape_hw, side_px=side_px, max_patches=2 * config.patches)
            pairs = cut_pair_patches(
                pair,
                cells,
                home / "patches",
                side_px=side_px,
                min_valid_frac=config.min_valid_frac,
                console=console,
            )
            stamps.require_unchanged(outcome="its patches fit no image", remedy="Give a new folder with -o")
    whole_map = None
    if ceg.level == "residual":
        folder = home / f"map-{hash_values(asdict(spec))[:8]}"
        whole_map = map_whole_pair(
            before, after, folder, vlm=vlm, prompts=prompts, ceg=ceg, config=config, console=console
        )
    patches = label_patches(
        pairs,
        vlm=vlm,
        prompts=prompts,
        ceg=ceg,
        store=home / "store",
        gsd_m=gsd_m,
        max_patches=config.patches,
        whole_map=whole_map,
    )
    write_train_list(home / "patches", patches.pairs)
    trained = train_recipe(recipe, run, quiet=console.quiet)
    shipped = vlm.identity == build_aerial().identity
    combined_with = (prompts, ceg) if shipped else None
    command = build_detect_command(before, after, run, config.detection, combined_with=combined_with)
    return AdaptResult(run, patches, trained, config, warnings, command)


def detect_with_adapted(
    adapted: AdaptResult,
    before: ImageInput,
    after: ImageInput,
    out: Path,
    *,
    base: Detector | None = None,
    combination: str = "both",
) -> SavedDetection:
    """Map the change of the pair that a network was adapted to; the pair is read as it was for training.

    Args:
        adapted: the result of the adaptation.
        before: date 1.
        after: date 2.
        out: folder of the map.
        base: detects without labels; its map gets outlines and objects of the network. None: the map is the network's.
        combination: what is taken from the network.
    """
    network = build_network_detector(adapted.run, device=adapted.config.device)
    detector = network if base is None else combine_detectors(base, network, combination=combination)
    return write_detection(before, after, out, detector=detector, config=adapted.config.detection)


def check_adapt_output(out: Path | None, run: Path) -> None:
    """Check, before anything is trained, that a result can be written.

    Raises:
        OutputError: the folder holds other things, or is the run directory.
    """
    if out is None:
        return
    if resolve_links(out) == resolve_links(run):
        raise OutputError(f"{out}: the run and the result need separate folders. Give another one to --detect.")
    check_output_folder(out, overwrite=False)


def build_detect_command(
    before: ImageInput,
    after: ImageInput,
    run: Path,
    detection: DetectionConfig,
    *,
    combined_with: tuple[Prompts, CEGSettings] | None = None,
) -> str:
    """Return the command that detects change with the run, reading the pair as it was read for training.

    Args:
        before: date 1.
        after: date 2.
        run: the run.
        detection: how the pair was read.
        combined_with: what the shipped VLM looked for, whose map is combined with the network's, and how its answers
            became labels; None: the network's own map.
    """
    words = ["semicdvl", "detect", str(before), str(after), "-o", f"{run}-out", "--model", str(run)]
    if combined_with is not None:
        words += ["--combine", "both"]
        prompts, ceg = combined_with
        if prompts != PROMPT_SETS["buildings"]:
            words += ["--find", ",".join(prompts.find), "--background", ",".join(prompts.background)]
        for name in RESIDUAL_OPTIONS if ceg.level == "residual" else ():
            if (value := getattr(ceg, name)) != getattr(CEGSettings, name):
                words += [f"--{name.replace('_', '-')}", f"{value:g}"]
        words += [] if detection.gsd_m is None else ["--gsd", f"{detection.gsd_m:g}"]
    words += list_reading_words(detection)
    return shlex.join([*words, *(["--allow-outside"] if detection.allow_outside else [])])


# ------------------------------------------------------------------------------------------------ parts
def _describe_source(pair: RasterPair, config: AdaptConfig, *, side_px: int) -> dict[str, Any]:
    """Return what the patches are cut from, and how: the same description, the same patches."""
    reading = config.list_reading_parts()
    return {"inputs": fingerprint_pair(pair), "reading": reading, "cut": [side_px, config.patches]}


def _claim_folder(run: Path, cut_from: dict[str, Any], *, asked: dict[str, Any]) -> None:
    """Mark the run's patches as those of this pair, or refuse those of another.

    Prompts and thresholds may change as long as nothing was trained: the store keeps answers to other prompts apart.

    Raises:
        InputError: adapt.json is damaged.
        OutputError: `run` is a file, the patches are of another pair, or the training used other labels.
    """
    path, key, question = run / SELF_TRAINING_FOLDER / "adapt.json", hash_values(FORMAT, cut_from), hash_values(asked)
    if path.is_file():
        known = read_model(path, _AdaptRecord, remedy="Give a new folder with -o")
        if known.key != key:
            raise OutputError(
                f"{run}: holds the adaptation to other images, or to these images read or cut in another way. "
                "Give a new folder with -o."
            )
        if known.question != question and (run / "run.json").exists():
            raise OutputError(
                f"{run}: was trained with labels of another VLM, other prompts or other thresholds. "
                "Give a new folder with -o."
            )
    elif run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise OutputError(f"{run}: exists and was not made by `semicdvl adapt`. Give a new folder with -o.")
    try:
        write_json(path, {"format": FORMAT, "key": key, "question": question, **cut_from, "asked": asked})
    except OutputError:  # a full disk: a folder without its record would be taken for somebody else's
        with contextlib.suppress(OSError):
            path.parent.rmdir()
            run.rmdir()
        raise
