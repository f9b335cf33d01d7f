"""Train networks with 0 to 100 % of labels, and exchange them: ONNX files, checkpoints of the public codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from semicdvl.api.parts import build_vlm, complete_ceg_settings, get_prompts
from semicdvl.config import Recipe, load_recipe, parse_recipe
from semicdvl.errors import ConfigError

if TYPE_CHECKING:
    from semicdvl.ceg.config import CEGSettings
    from semicdvl.ceg.prompts import Prompts
    from semicdvl.detection.detectors.onnx.export import OnnxExport
    from semicdvl.official import ImportedCheckpoint
    from semicdvl.training.run_record import TrainedRun
    from semicdvl.training.self_training.config import AdaptConfig
    from semicdvl.training.self_training.run import AdaptResult
    from semicdvl.types import VLM


def train(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    run: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    quiet: bool = False,
) -> TrainedRun:
    """Train a network with 0 to 100 % of labels; started again with the same recipe, it resumes.

    Args:
        recipe: a TOML file, its content as plain values, or a `Recipe`.
        run: run directory; None: `runs/NAME` with the recipe's name.
        overrides: `key=value` as on the command line, such as "train.steps=500"; for a file only.
        quiet: show no progress.

    Returns:
        TrainedRun: `.run`, `.val` and `.test` (scores of the selected step), `.seconds`.

    Raises:
        ConfigError, DataError, StoreError, InputError: the recipe, or what it names, cannot be used.
        CheckpointError: `run` holds a run of another recipe.
        DivergedError: the loss is no number.

    Examples:
        >>> import semicdvl as cd
        >>> recipe = {
        ...     "data": {"root": patches, "crop_px": 32},
        ...     "model": {"name": "fc_siam_diff", "width": 4},
        ...     "method": {"name": "supervised"},
        ...     "train": {"steps": 2, "labelled_batch": 2, "eval_every": 2, "device": "cpu"},
        ... }
        >>> trained = cd.train(recipe, out, quiet=True)
        >>> 0 <= trained.val["iou"] <= 1
        True
    """
    from semicdvl.training import run as training

    checked = _read_recipe(recipe, overrides)
    folder = Path("runs") / checked.name if run is None else Path(run)
    try:
        return training.train_recipe(checked, folder, quiet=quiet)
    except ConfigError as error:  # a part that the recipe names cannot be built, or does not fit the others
        if not isinstance(recipe, str | Path):
            raise
        raise ConfigError(f"{recipe}: {error}") from error


def adapt(
    before: str | Path | Sequence[str | Path],
    after: str | Path | Sequence[str | Path],
    run: str | Path,
    *,
    vlm: str | VLM | Callable[[], VLM] = "aerial",
    prompts: str | Prompts = "buildings",
    ceg: CEGSettings | Mapping[str, Any] | None = None,
    config: AdaptConfig | None = None,
) -> AdaptResult:
    """Train a small network on two rasters without a label: a VLM's reliable answers are its labels.

    Args:
        before: image of date 1.
        after: image of date 2.
        run: run directory; what an interrupted adaptation left there is resumed.
        vlm: a name of `list_vlms`, a VLM, or a function without arguments that builds one.
        prompts: a name of `list_prompt_sets`, or `Prompts`.
        ceg: settings; given as a mapping, what is missing is the default: the residual level (the mixed level where
            `gamma` or settings of whole objects are given), and 0.4 of the VLM's own confidence threshold.
        config: size and length of the training, and how the pair is read, see `AdaptConfig`.

    Returns:
        AdaptResult: `.run` for `load_detector`, `.trained`, `.warnings`.

    Raises:
        InputError: an image cannot be used.
        DataError: the images are too small, or the VLM finds no change at all.
        OutputError, CheckpointError: `run` holds something else.
        ConfigError, MissingExtraError: a part cannot be built.

    Examples:
        >>> import semicdvl as cd
        >>> adapted = cd.adapt("before.tif", "after.tif", "runs/place")                 # doctest: +SKIP
        >>> cd.detect("before.tif", "after.tif", model=adapted.run)                     # doctest: +SKIP
    """
    from semicdvl.ceg.config import choose_learning_level
    from semicdvl.training import self_training
    from semicdvl.training.self_training.labels import default_gamma_of

    model = build_vlm(vlm)
    level = choose_learning_level(ceg if isinstance(ceg, Mapping) else ())
    settings = complete_ceg_settings(ceg, gamma=default_gamma_of(model), level=level)
    return self_training.adapt_to_pair(
        before,
        after,
        Path(run),
        vlm=model,
        prompts=get_prompts(prompts),
        ceg=settings,
        config=config,
    )


def export(
    run: str | Path,
    output: str | Path | None = None,
    *,
    to: Literal["onnx"] = "onnx",
    threshold: float = 0.5,
    heads: bool = False,
    trust: Sequence[str] = (),
) -> OnnxExport:
    """Write the network of a run as one file that `load_detector` runs without torch.

    The file is compared with the network before it takes its place. It holds the change head, and with `heads` those
    of the classes of both dates, for pairs of any number and size, and says in its metadata how images are normalised.
    Needs the extra `onnx`.

    Args:
        run: a folder that `train` wrote.
        output: the file; None: `run/model.onnx`.
        to: format of the file.
        threshold: least probability of a changed pixel, in [0, 1].
        heads: also write the segmentation heads.
        trust: modules whose networks the run may name, see `load_model`.

    Returns:
        OnnxExport: `.path`, `.size_mb`, `.largest_difference` from torch, `.multiple_px` of the sides.

    Raises:
        CheckpointError: `run` is no run, or the file differs from the network.
        ConfigError: the run names code that is not trusted.
        MissingExtraError: onnx or onnxruntime is missing.

    Examples:
        >>> import semicdvl as cd
        >>> exported = cd.export(run, "model.onnx")                                     # doctest: +SKIP
        >>> cd.detect(before, after, model=exported.path)                               # doctest: +SKIP
    """
    from semicdvl.detection.detectors.onnx.export import export_onnx

    path = Path(run) / f"model.{to}" if output is None else Path(output)
    return export_onnx(Path(run), path, threshold=threshold, heads=heads, trust=trust)


def import_official(
    checkpoint: str | Path, run: str | Path, *, source: str = "semicd_vl", weights: str | None = None
) -> ImportedCheckpoint:
    """Turn a checkpoint of the public SemiCD-VL or UniMatch V2 code into a run; nothing is unpickled.

    The public codes select their best epoch on the *test* pairs, so the run is marked as selected on test.

    Args:
        checkpoint: a .pth file of the public code, such as its best.pth.
        run: run directory to write; it must not hold anything.
        source: the public code that wrote it: "semicd_vl" or "unimatch_v2".
        weights: key of the tensors in the file, such as "model"; None: those that the public code validates (for
            UniMatch V2 "model_ema", the moving average).

    Returns:
        ImportedCheckpoint: `.run`, for `load_model` and `load_detector`, and what was imported.

    Raises:
        ConfigError: no such public code.
        InputError: the file is missing, or holds Python objects besides tensors and numbers.
        CheckpointError: tensors do not fit the network, or `run` is not empty.

    Examples:
        >>> import semicdvl as cd
        >>> imported = cd.import_official("best.pth", "runs/official")                  # doctest: +SKIP
        >>> network = cd.load_model(imported.run)                                       # doctest: +SKIP
    """
    from semicdvl import official

    return official.import_public_checkpoint(Path(checkpoint), Path(run), public_code=source, weights=weights)


def _read_recipe(recipe: str | Path | Mapping[str, Any] | Recipe, overrides: Sequence[str]) -> Recipe:
    """Return a recipe, checked, whichever way it is given.

    Raises:
        InputError: the file is missing or not TOML.
        ConfigError: a key is unknown or a value does not fit, or a recipe that is no file comes with overrides.
    """
    if isinstance(recipe, str | Path):
        return load_recipe(Path(recipe), overrides=tuple(overrides))
    if overrides:
        raise ConfigError("overrides are for a recipe file; change the values of the recipe that was given instead.")
    return recipe if isinstance(recipe, Recipe) else parse_recipe(dict(recipe), source="recipe")
