"""Build the exchangeable parts: networks, methods, VLMs, detectors and data sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, cast

from semicdvl.data import DATASETS
from semicdvl.errors import ConfigError
from semicdvl.registry import build_part
from semicdvl.vlms import create_vlm

if TYPE_CHECKING:
    from semicdvl.api.trained_network import TrainedNetwork
    from semicdvl.ceg.config import CEGSettings
    from semicdvl.ceg.features import FeatureExtractor
    from semicdvl.ceg.prompts import Prompts
    from semicdvl.data.change_dataset import ChangeDataset
    from semicdvl.types import VLM, Detector

Precision = Literal["fp32", "bf16"]


# ------------------------------------------------------------------------------------------------ build
def load_model(
    run: str | Path, *, train_heads: bool = True, device: str = "cpu", trust: Sequence[str] = ()
) -> TrainedNetwork:
    """Load the trained network of a run, in evaluation mode.

    Call it with the images of two dates, float32 RGB / 255 normalised with the ImageNet mean and standard deviation
    (`semicdvl.types.IMAGENET_MEAN`, `IMAGENET_STD`), BCHW of any size. It returns `Outputs`: logits of the size of the
    input, class 1 changed or foreground, and the features of both dates at the decoder's stride. `run.json` names, as
    `heads`, the outputs that the method trained; the other outputs are untrained.

    `predict(t1_HWC, t2_HWC)` takes two uint8 RGB images as they are, normalises them, and returns a `ChangeMap`. Where
    the network was trained with images of more than 8 bits it takes such images, too, with the stretch of the training.

    Args:
        run: a folder that `train`, `adapt` or `import_official` wrote.
        train_heads: False drops what only training needs (VLM head, segmentation decoder): only `change_BKHW` is
            returned, the same to the bit.
        device: the torch device that the network is put on, such as `cuda`.
        trust: modules whose networks the run may name, such as `("mymodule",)`; a run that somebody sent may name no
            other code than that of semicdvl.

    Returns:
        TrainedNetwork: a `torch.nn.Module` with `predict`; `.heads`, `.stretch`, `.input_bands` and `.date_classes` say
        what it has and was trained with.

    Raises:
        CheckpointError: `run` is no run directory, or its weights are of another model.
        ConfigError: the run names code that is not trusted.

    Examples:
        >>> import semicdvl as cd, torch
        >>> network = cd.load_model(run)
        >>> t1_BCHW, t2_BCHW = torch.randn(2, 1, 3, 64, 96)
        >>> network(t1_BCHW, t2_BCHW).change_BKHW.shape
        torch.Size([1, 2, 64, 96])
        >>> network.predict(before, after).change_HW.shape
        (64, 96)
    """
    from semicdvl.api.trained_network import add_predict
    from semicdvl.checkpoint import load_network, read_run, read_run_bands, read_run_stretch
    from semicdvl.detection.detectors.date_classes import read_date_classes

    network, record = load_network(Path(run), device=device, train_heads=train_heads, trust=trust), read_run(Path(run))
    classes = read_date_classes(record["recipe"])
    return add_predict(network, stretch=read_run_stretch(record), bands=read_run_bands(record), date_classes=classes)


load = load_model
"""The first name of `load_model`, kept for code that uses it."""


def load_detector(
    model: str | Path,
    *,
    device: str = "auto",
    threshold: float = 0.5,
    precision: Precision = "fp32",
    compiled: bool = False,
    trust: Sequence[str] = (),
    decide: Literal["change", "both"] = "change",
) -> Detector:
    """Load a trained network as a detector for `detect`.

    Args:
        model: a folder that `train`, `adapt` or `import_official` wrote, or an ONNX file that `export` wrote (it
            brings its own threshold).
        device: torch device; "auto" takes a GPU where there is one.
        threshold: least probability of a changed pixel, in [0, 1].
        precision: "fp32", or "bf16", which is faster where the hardware has it and not exact to rounding.
        compiled: compile the network at its first tile; needs a C++ compiler.
        trust: modules whose networks the run may name, see `load_model`.
        decide: "change": the change head alone decides what has changed; "both": the classes of the dates, where the
            network tells them, must differ, too.

    Returns:
        Detector: for the argument `detector` of `detect`, `detect_to_folder` and `detect_pairs`.

    Raises:
        CheckpointError: `model` is no run directory and no exported file.
        ConfigError: an ONNX file with another precision, or to be compiled; a run that names code that is not trusted;
            classes that shall decide and are not there.
        MissingExtraError: onnxruntime or a compiler is missing.

    Examples:
        >>> import semicdvl as cd
        >>> result = cd.detect(before, after, detector=cd.load_detector(run, threshold=0.6))
        >>> result.score.dtype
        dtype('float32')
    """
    from semicdvl.detection.detectors.network import build_network_detector

    return build_network_detector(
        Path(model),
        device=device,
        threshold=threshold,
        precision=precision,
        compiled=compiled,
        trust=trust,
        deciding=decide,
    )


def create_detector(name: str, **options: Any) -> Detector:
    """Build an unsupervised detector by its name, with the networks that it needs.

    Args:
        name: one of `list_detectors`, or `package.module:builder` for a detector of your own.
        options: of the detector, and of its networks (`backbone`, `weights`, `device`, `sam`, `clip`, ...).

    Returns:
        Detector: for the argument `detector` of `detect`, `detect_to_folder` and `detect_pairs`.

    Raises:
        ConfigError: the name or an option is unknown, or a value is out of its range.
        InputError: weights are missing or damaged; the text says how to get them.
        MissingExtraError: the detector needs an optional package.

    Examples:
        >>> import semicdvl as cd
        >>> detector = cd.create_detector("cva", threshold="otsu")
        >>> cd.detect(before, after, detector=detector).change.shape
        (64, 96)
    """
    from semicdvl.detection.detectors.unsupervised import build_unsupervised_detector

    return build_unsupervised_detector(name, options)


def create_vlm_detector(
    vlm: str | VLM | Callable[[], VLM] = "aerial",
    *,
    prompts: str | Prompts = "buildings",
    ceg: CEGSettings | Mapping[str, Any] | None = None,
    features: str | FeatureExtractor | None = None,
    calibrate: bool = False,
    class_score: float | None = None,
    cache: str | Path | None = None,
) -> Detector:
    """Build the detector that needs no labels: a VLM and change event generation (CEG).

    Args:
        vlm: a name of `list_vlms`, a VLM, or a function without arguments that builds one.
        prompts: a name of `list_prompt_sets`, or `Prompts` with words of your own.
        ceg: settings of change event generation; given as a mapping, what is missing is the default: the residual level
            (the instance level where settings of whole objects are given, or `calibrate`) and the VLM's own confidence
            threshold.
        features: the encoder whose features of the dates are compared, by its name, or a feature extractor; needed for
            `min_cosine`; None at the residual level: the embedded VLM's own encoder.
        calibrate: give every changed object a probability, learned from the pair; keep those from 0.5 on.
        class_score: mean score from which the class of an object is named and not "unsure"; None: the VLM's own.
        cache: a folder that keeps the VLM's answers, so that a second detection of the same images with other words,
            thresholds or rules takes seconds; scores are then rounded down to steps of 1 / 4000.

    Returns:
        Detector: for the argument `detector` of `detect`, `detect_to_folder` and `detect_pairs`.

    Raises:
        ConfigError: a name is unknown, or settings do not fit each other.
        InputError: weights of the VLM are missing or damaged.
        OutputError: `cache` holds other files, or cannot be written.
        MissingExtraError: the VLM needs an optional package.

    Examples:
        >>> import semicdvl as cd
        >>> prompts = cd.Prompts(find=("building",), background=("grass",))
        >>> detector = cd.create_vlm_detector("fake", prompts=prompts, ceg={"delta": 0.01})
        >>> detector.name
        'fake-1 + instance CEG'
        >>> cd.create_vlm_detector("fake", prompts=prompts).name
        'fake-1 + residual CEG'
    """
    from semicdvl.ceg.config import choose_detection_level
    from semicdvl.detection.detectors.calibrated import add_calibration
    from semicdvl.detection.detectors.vlm_ceg import build_default_detector

    model, source = build_vlm(vlm), build_features(features)
    if cache is not None:
        model = _keep_answers(model, Path(cache))
    level = choose_detection_level(ceg if isinstance(ceg, Mapping) else (), calibrate=calibrate)
    settings = complete_ceg_settings(ceg, gamma=model.gamma, level=level)
    words = get_prompts(prompts)
    detector = build_default_detector(model, prompts=words, settings=settings, features=source, class_score=class_score)
    return add_calibration(detector) if calibrate else detector


def combine_detectors(base: Detector, network: Detector, *, combination: str = "both") -> Detector:
    """Build the detector of the map without labels, with what a trained network knows better.

    It gives the best map of a pair that a network was adapted to: what `semicdvl adapt --detect` writes.

    Args:
        base: from `create_vlm_detector`; its objects stay.
        network: from `load_detector`, usually of a run of `adapt`.
        combination: what is taken from the network: "outlines" (objects are widened by up to 0.5 m where it finds
            change), "objects" (those that it alone finds, with a high mean probability), or "both".

    Raises:
        ConfigError: one of the detectors is of another kind, the network was trained with other bands than RGB, or the
            combination is unknown.

    Examples:
        >>> import semicdvl as cd
        >>> adapted = cd.adapt("before.tif", "after.tif", "runs/place")                 # doctest: +SKIP
        >>> detector = cd.combine_detectors(cd.create_vlm_detector(), cd.load_detector(adapted.run))  # doctest: +SKIP
        >>> cd.detect("before.tif", "after.tif", detector=detector)                     # doctest: +SKIP
    """
    from semicdvl.detection.detectors import combined

    return combined.combine_detectors(base, network, combination=combination)


def load_dataset(root: str | Path, *, reader: str = "folder", tile_px: int | None = None) -> ChangeDataset:
    """Read which pairs and labels a data set on disk holds; no image is read.

    Args:
        root: folder of the data set; for the reader `folder`: A/ and B/, with label/ where there are labels.
        reader: one of `list_datasets`, or `package.module:reader`.
        tile_px: cut the images into tiles with this side in pixels; None: as the reader does by default.

    Returns:
        ChangeDataset: `.pairs`, each with its files and, where there is one, its label.

    Raises:
        ConfigError: the reader is unknown, or does not cut.
        DataError, InputError: the folder does not hold what the reader expects.

    Examples:
        >>> import semicdvl as cd
        >>> dataset = cd.load_dataset(patches)
        >>> len(dataset.pairs), dataset.pairs[0].label is not None
        (6, True)
    """
    options: dict[str, Any] = {"root": Path(root)} | ({} if tile_px is None else {"crop_px": tile_px})
    dataset: ChangeDataset = build_part("data set", reader, DATASETS, options)
    return dataset


# ------------------------------------------------------------------------------------------------ arguments -> parts
def build_vlm(vlm: str | VLM | Callable[[], VLM]) -> VLM:
    """Return the VLM that an argument means: one by name, one as it is, or one that is built now."""
    if isinstance(vlm, str):
        return create_vlm(vlm)
    return vlm if is_vlm(vlm) else cast("Callable[[], VLM]", vlm)()


def is_vlm(part: object) -> TypeGuard[VLM]:
    """Tell whether something is a VLM, and not what builds one; its identity is not computed."""
    return hasattr(part, "segment")


def _keep_answers(vlm: VLM, folder: Path) -> VLM:
    """Return a VLM whose answers are kept in a folder."""
    from semicdvl.detection.detectors.cached_vlm import cache_answers
    from semicdvl.vlms.answer_cache import AnswerCache

    return cache_answers(vlm, AnswerCache(folder))


def build_features(features: str | FeatureExtractor | None) -> FeatureExtractor | None:
    """Return the feature extractor that an argument means."""
    if not isinstance(features, str):
        return features
    from semicdvl.ceg.features import build_feature_extractor

    return build_feature_extractor(features)


def get_prompts(prompts: str | Prompts) -> Prompts:
    """Return the prompts that an argument means.

    Raises:
        ConfigError: the name is unknown.
    """
    from semicdvl.ceg.prompts import resolve_prompts

    return resolve_prompts(prompt_set=prompts) if isinstance(prompts, str) else prompts


def complete_ceg_settings(
    settings: CEGSettings | Mapping[str, Any] | None, *, gamma: float, **defaults: Any
) -> CEGSettings:
    """Return settings of change event generation, what was not given filled in from `gamma` and `defaults`.

    Raises:
        ConfigError: a setting is unknown or out of its range.
    """
    from semicdvl.ceg.config import CEGSettings

    if isinstance(settings, CEGSettings):
        return settings
    given = {"gamma": gamma, "gamma_segmentation": gamma, **defaults, **(settings or {})}
    try:
        return CEGSettings(**given)
    except TypeError as error:
        raise ConfigError(
            f"unknown setting of change event generation ({error}). See semicdvl.CEGSettings for the known ones."
        ) from None
