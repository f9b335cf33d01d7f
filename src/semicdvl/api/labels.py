"""Make labels: change events of two answers, stores of pseudo-labels, and which patches to label next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from semicdvl.api.parts import build_features, build_vlm, complete_ceg_settings, get_prompts, is_vlm, load_dataset
from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.features import AERIAL_ENCODER
from semicdvl.errors import ConfigError, DataError
from semicdvl.vlms import create_vlm

if TYPE_CHECKING:
    from semicdvl.ceg.features import FeatureExtractor, PairFeatures
    from semicdvl.ceg.prompts import ClassPrompts, Prompts
    from semicdvl.data.change_dataset import ChangeDataset
    from semicdvl.evaluation.active_learning.select import PatchSuggestions, SuggestConfig
    from semicdvl.pseudo_labels.quality import FillResult
    from semicdvl.types import VLM, Segments, VLMLabels


def change_events(
    segments_t1: Segments,
    segments_t2: Segments,
    *,
    prompts: str | Prompts = "buildings",
    ceg: CEGSettings | Mapping[str, Any] | None = None,
    features: PairFeatures | None = None,
) -> VLMLabels:
    """Turn a VLM's answers for two dates into a change label and single-date labels (change event generation, CEG).

    Args:
        segments_t1: the answer for date 1: `scores_CHW` in [0, 1], one map per prompt, and the instances if it has any.
        segments_t2: the answer for date 2, for the same prompts and of the same size.
        prompts: what was asked: a name of `list_prompt_sets`, or `Prompts`; its words are those of the answers.
        ceg: settings; None: the paper's (mixed level, confidence threshold 0.8). A mapping changes some of them.
        features: feature maps of both dates: needed for `min_cosine`; at the residual level, where given, events under
            which they differ too little are left out.

    Returns:
        VLMLabels: uint8 maps `change_HW`, `t1_HW` and `t2_HW` of 0, 1 and IGNORE (255: the VLM is not sure).

    Raises:
        DataError: the answers do not fit each other or the prompts.
        ConfigError: settings are unknown or do not fit each other, or only one date has instances.

    Examples:
        >>> import semicdvl as cd
        >>> prompts = cd.Prompts(find=("building",), background=("grass",))
        >>> vlm = cd.create_vlm("fake")
        >>> t1, t2 = (vlm.segment(image, prompts.words) for image in (before, after))
        >>> labels = cd.change_events(t1, t2, prompts=prompts, ceg={"level": "instance", "gamma": 0.5})
        >>> int((labels.change_HW == 1).sum())      # a building of 30 x 40 px appeared
        1200
    """
    from semicdvl.ceg.labels import make_labels

    words = get_prompts(prompts)
    for date, segments in enumerate((segments_t1, segments_t2), 1):
        if tuple(segments.prompts) != words.words:
            raise DataError(
                f"the answer for date {date} is about {', '.join(segments.prompts)}; the prompts are "
                f"{', '.join(words.words)}. Give the prompts that the VLM was asked, in their order."
            )
    settings = complete_ceg_settings(ceg, gamma=CEGSettings.gamma)
    return make_labels(segments_t1, segments_t2, prompts=words, settings=settings, features=features)


def pseudo_label(
    data: str | Path | ChangeDataset,
    store: str | Path,
    *,
    vlm: str | VLM | Callable[[], VLM] = "aerial",
    prompts: str | Prompts = "buildings",
    ceg: CEGSettings | Mapping[str, Any] | None = None,
    features: str | FeatureExtractor | None = None,
    classes: str | Path | Mapping[str, Sequence[str]] | ClassPrompts | None = None,
    gsd_m: float | None = None,
    executor: Literal["local", "ray"] = "local",
    workers: int = 1,
    report: bool = False,
    progress: bool = True,
) -> FillResult:
    """Ask a VLM about every image of a data set and keep its answers, and the labels made of them, in a store.

    An interrupted run is resumed; what is finished is not done again. With other thresholds the labels are made anew in
    seconds, from the answers in the store.

    Args:
        data: folder of a data set (A/ and B/, with or without label/), or what `load_dataset` returned.
        store: folder of the pseudo-label store.
        vlm: a name of `list_vlms`, a VLM, or a function without arguments that builds one.
        prompts: a name of `list_prompt_sets`, or `Prompts`.
        ceg: settings; given as a mapping, what is missing is the default: the mixed level and the VLM's own threshold.
        features: the encoder whose features of the dates are compared, by its name, or a feature extractor; needed for
            `min_cosine`; None at the residual level: the embedded VLM's own encoder.
        classes: of the single-date labels, in place of foreground and background: a recipe with [classes] and prompts,
            or the prompts of each class by name, in the order of their index; they take the place of `prompts`.
        gsd_m: ground sampling distance in metres per pixel, which is handed to the VLM.
        executor: "local" for processes of this machine, "ray" for a Ray cluster.
        workers: processes; each builds the VLM once, so with several `vlm` must be a name or a function.
        report: also write `report.html` into the store: pictures and numbers.
        progress: show progress on standard error.

    Returns:
        FillResult: `.summary`, and `.quality`: the labels against the truth, where the data set has labels.

    Raises:
        DataError, InputError: the data set, an image or an answer cannot be used.
        StoreError: `store` holds something else, or a worker died.
        OutputError: the store cannot be written.
        ConfigError: settings do not fit each other.

    Examples:
        >>> import semicdvl as cd
        >>> prompts = cd.Prompts(find=("building",), background=("grass",))
        >>> filled = cd.pseudo_label(patches, store, vlm="fake", prompts=prompts, ceg={"gamma": 0.5}, progress=False)
        >>> filled.quality[0].valid.iou
        1.0
    """
    from semicdvl.pseudo_labels.quality import fill_store
    from semicdvl.pseudo_labels.report import write_store_report
    from semicdvl.pseudo_labels.workers import WorkerSettings

    pairs = (load_dataset(data) if isinstance(data, str | Path) else data).pairs
    model = build_vlm(vlm)
    settings = complete_ceg_settings(ceg, gamma=model.gamma)
    features = AERIAL_ENCODER if features is None and settings.vetoes_by_distance else features
    source = build_features(features)
    worker_settings = WorkerSettings(
        _get_vlm_builder(vlm, workers), _get_feature_builder(features, workers), workers, executor, quiet=not progress
    )
    filled = fill_store(
        pairs,
        vlm=model,
        prompts=get_class_prompts(classes) or get_prompts(prompts),
        settings=settings,
        root=Path(store),
        gsd_m=gsd_m,
        features=source,
        workers=worker_settings,
    )
    if report:
        write_store_report(Path(store), pairs, settings=settings, quiet=not progress)
    return filled


def verify_store(store: str | Path) -> str:
    """Read a pseudo-label store again and tell whether it is intact.

    Args:
        store: folder of the store.

    Returns:
        A line that says that it is intact, and how many labels it holds.

    Raises:
        StoreError: it is no store, or files are damaged; each is named.

    Examples:
        >>> import semicdvl as cd
        >>> prompts = cd.Prompts(find=("building",), background=("grass",))
        >>> _ = cd.pseudo_label(patches, store, vlm="fake", prompts=prompts)
        >>> cd.verify_store(store).endswith("intact, 6 labels.")
        True
    """
    from semicdvl.pseudo_labels import quality

    return quality.verify_entries(Path(store))


def suggest(
    result: str | Path, *, config: SuggestConfig | None = None, features: str | FeatureExtractor | None = None
) -> PatchSuggestions:
    """Suggest which patches to label next, and write them as boxes and as a picture sheet into the result's folder.

    Patches are taken where map and score are most uncertain, and so that they differ from each other.

    Args:
        result: folder that `detect_to_folder` wrote.
        config: count, size and seed of the patches, see `SuggestConfig`.
        features: the encoder that compares patches, by its name, or a feature extractor; None: by their colours.

    Returns:
        PatchSuggestions: `.patches`, the first to label first, `.out`, the folder with the files, and `.summary`.

    Raises:
        InputError: `result` is no result, or its images cannot be found.
        ConfigError: no such encoder, or impossible numbers.

    Examples:
        >>> import semicdvl as cd
        >>> saved = cd.detect_to_folder(before_tif, after_tif, out, detector=cd.create_detector("cva"), progress=False)
        >>> suggested = cd.suggest(saved.folder, config=cd.SuggestConfig(count=2, patch_px=32))
        >>> (saved.folder / "suggest.gpkg").is_file()
        True
    """
    from semicdvl.evaluation.active_learning.select import suggest_patches

    return suggest_patches(Path(result), config=config, source=build_features(features))


def get_class_prompts(
    classes: str | Path | Mapping[str, Sequence[str]] | ClassPrompts | None,
) -> ClassPrompts | None:
    """Return the classes and prompts that an argument means; None: no classes.

    Raises:
        InputError: the recipe is missing or not TOML.
        ConfigError: it names no prompts, or they don't tell the classes apart.
    """
    from semicdvl.ceg.prompts import ClassPrompts, build_class_prompts
    from semicdvl.config import ClassesConfig, find_shipped, parse_section, read_with_base

    if classes is None or isinstance(classes, ClassPrompts):
        return classes
    if isinstance(classes, Mapping):
        return build_class_prompts(tuple(classes), classes)
    section = read_with_base(find_shipped(Path(classes))).get("classes")
    if not isinstance(section, dict) or not section.get("prompts"):
        raise ConfigError(
            f"{classes}: names no classes with prompts. Add such as [classes] names = ['background', 'building'] and"
            " [classes.prompts] background = ['road', 'grass'], building = ['house', 'building']."
        )
    config = parse_section(ClassesConfig, section, source=f"{classes}, classes")
    try:
        return build_class_prompts(config.names, config.prompts or {}, config.changing)
    except ConfigError as error:
        raise ConfigError(f"{classes}: {error}") from error


def _get_vlm_builder(vlm: str | VLM | Callable[[], VLM], workers: int) -> Callable[[], VLM]:
    """Return what builds a VLM once more, in a worker.

    Raises:
        ConfigError: several workers, and a VLM that is built already.
    """
    if isinstance(vlm, str):
        return partial(create_vlm, vlm)
    if not is_vlm(vlm):
        return cast("Callable[[], VLM]", vlm)
    if workers > 1:
        raise ConfigError(
            f"{workers} workers each build their own VLM: give its name, or a function that builds it, "
            "such as functools.partial(semicdvl.create_vlm, 'aerial')."
        )
    built = vlm
    return lambda: built


def _get_feature_builder(
    features: str | FeatureExtractor | None, workers: int
) -> Callable[[], FeatureExtractor] | None:
    """Return what builds a feature extractor once more, in a worker; None where there is none.

    Raises:
        ConfigError: several workers, and a feature extractor that is built already.
    """
    from semicdvl.ceg.features import build_feature_extractor

    if features is None:
        return None
    if isinstance(features, str):
        return partial(build_feature_extractor, features)
    if workers > 1:
        raise ConfigError(f"{workers} workers each build their own feature extractor: give the name of its encoder.")
    return lambda: features
