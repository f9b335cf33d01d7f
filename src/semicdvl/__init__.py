"""Change detection between two images of one place, with 0 to 100 % of labels.

    import semicdvl as cd

    result = cd.detect("before.tif", "after.tif")      # no labels: a vision-language model and change event generation
    result.change, result.score, result.objects        # array, array, GeoDataFrame; result.save("out/") writes files
    cd.train("recipe.toml")                            # few labels, or many
    cd.detect("before.tif", "after.tif", model="runs/few")

A name is imported when it is first used: `import semicdvl` itself loads neither torch nor NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from semicdvl.version import __version__

if TYPE_CHECKING:
    from semicdvl.api.detection import check_pair, detect, detect_pairs, detect_to_folder, run_demo
    from semicdvl.api.evaluation import benchmark, draw_sample, evaluate, evaluate_map
    from semicdvl.api.images import ImageSource
    from semicdvl.api.labels import change_events, pseudo_label, suggest, verify_store
    from semicdvl.api.parts import (
        combine_detectors,
        create_detector,
        create_vlm_detector,
        load,
        load_dataset,
        load_detector,
        load_model,
    )
    from semicdvl.api.prepare import prepare, prepare_published
    from semicdvl.api.registries import (
        list_datasets,
        list_detectors,
        list_prompt_sets,
        register_dataset,
        register_detector,
        register_method,
        register_model,
        register_vlm,
    )
    from semicdvl.api.review import create_review_app, serve
    from semicdvl.api.training import adapt, export, import_official, train
    from semicdvl.benchmarking.config import Suite, load_suite
    from semicdvl.benchmarking.run import BenchmarkResult
    from semicdvl.ceg.config import CEGSettings
    from semicdvl.ceg.prompts import Prompts, resolve_prompts
    from semicdvl.config import Recipe, load_recipe
    from semicdvl.data.change_dataset import ChangeDataset
    from semicdvl.data.prepare.config import PrepareSettings
    from semicdvl.data.prepare.published import PublishedDataset
    from semicdvl.data.prepare.results import PreparedPatches
    from semicdvl.detection.batch.outcomes import BatchResult
    from semicdvl.detection.changes import ChangeSummary
    from semicdvl.detection.config import DetectionConfig
    from semicdvl.detection.detectors.onnx.export import OnnxExport
    from semicdvl.detection.inputs import ArrayImage
    from semicdvl.detection.pair_check.results import PairCheck
    from semicdvl.detection.results import DetectionResult
    from semicdvl.detection.run_record import SavedDetection
    from semicdvl.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        DivergedError,
        InputError,
        MissingExtraError,
        OutputError,
        SemicdvlError,
        StoreError,
        WorkerError,
    )
    from semicdvl.evaluation.active_learning.select import PatchSuggestions, SuggestConfig
    from semicdvl.evaluation.evaluate import MapEvaluation
    from semicdvl.methods import create_method, list_methods
    from semicdvl.models import create_model, list_models
    from semicdvl.official import ImportedCheckpoint
    from semicdvl.pseudo_labels.quality import FillResult
    from semicdvl.review.settings import ServeConfig
    from semicdvl.synthetic.city import SyntheticCity
    from semicdvl.synthetic.config import CitySpec
    from semicdvl.synthetic.generate import generate_city
    from semicdvl.training.run_record import TrainedRun
    from semicdvl.training.self_training.config import AdaptConfig
    from semicdvl.training.self_training.run import AdaptResult
    from semicdvl.types import (
        IGNORE,
        VLM,
        Detector,
        Instance,
        Method,
        Outputs,
        PairFiles,
        ReadingSettings,
        Segments,
        VLMLabels,
    )
    from semicdvl.vlms import create_vlm, list_vlms

__all__ = [
    "IGNORE",
    "VLM",
    "AdaptConfig",
    "AdaptResult",
    "ArrayImage",
    "BatchResult",
    "BenchmarkResult",
    "CEGSettings",
    "ChangeDataset",
    "ChangeSummary",
    "CheckpointError",
    "CitySpec",
    "ConfigError",
    "DataError",
    "DetectionConfig",
    "DetectionResult",
    "Detector",
    "DivergedError",
    "FillResult",
    "ImageSource",
    "ImportedCheckpoint",
    "InputError",
    "Instance",
    "MapEvaluation",
    "Method",
    "MissingExtraError",
    "OnnxExport",
    "OutputError",
    "Outputs",
    "PairCheck",
    "PairFiles",
    "PatchSuggestions",
    "PrepareSettings",
    "PreparedPatches",
    "Prompts",
    "PublishedDataset",
    "ReadingSettings",
    "Recipe",
    "SavedDetection",
    "Segments",
    "SemicdvlError",
    "ServeConfig",
    "StoreError",
    "SuggestConfig",
    "Suite",
    "SyntheticCity",
    "TrainedRun",
    "VLMLabels",
    "WorkerError",
    "__version__",
    "adapt",
    "benchmark",
    "change_events",
    "check_pair",
    "combine_detectors",
    "create_detector",
    "create_method",
    "create_model",
    "create_review_app",
    "create_vlm",
    "create_vlm_detector",
    "detect",
    "detect_pairs",
    "detect_to_folder",
    "draw_sample",
    "evaluate",
    "evaluate_map",
    "export",
    "generate_city",
    "import_official",
    "list_datasets",
    "list_detectors",
    "list_methods",
    "list_models",
    "list_prompt_sets",
    "list_vlms",
    "load",
    "load_dataset",
    "load_detector",
    "load_model",
    "load_recipe",
    "load_suite",
    "prepare",
    "prepare_published",
    "pseudo_label",
    "register_dataset",
    "register_detector",
    "register_method",
    "register_model",
    "register_vlm",
    "resolve_prompts",
    "run_demo",
    "serve",
    "suggest",
    "train",
    "verify_store",
]

_EXPORTS = {
    "semicdvl.api.detection": ("check_pair", "detect", "detect_pairs", "detect_to_folder", "run_demo"),
    "semicdvl.api.evaluation": ("benchmark", "draw_sample", "evaluate", "evaluate_map"),
    "semicdvl.api.images": ("ImageSource",),
    "semicdvl.api.labels": ("change_events", "pseudo_label", "suggest", "verify_store"),
    "semicdvl.api.prepare": ("prepare", "prepare_published"),
    "semicdvl.api.parts": (
        "combine_detectors",
        "create_detector",
        "create_vlm_detector",
        "load",
        "load_dataset",
        "load_detector",
        "load_model",
    ),
    "semicdvl.api.registries": (
        "list_datasets",
        "list_detectors",
        "list_prompt_sets",
        "register_dataset",
        "register_detector",
        "register_method",
        "register_model",
        "register_vlm",
    ),
    "semicdvl.api.review": ("create_review_app", "serve"),
    "semicdvl.api.training": ("adapt", "export", "import_official", "train"),
    "semicdvl.benchmarking.config": ("Suite", "load_suite"),
    "semicdvl.benchmarking.run": ("BenchmarkResult",),
    "semicdvl.ceg.config": ("CEGSettings",),
    "semicdvl.ceg.prompts": ("Prompts", "resolve_prompts"),
    "semicdvl.config": ("Recipe", "load_recipe"),
    "semicdvl.data.change_dataset": ("ChangeDataset",),
    "semicdvl.data.prepare.config": ("PrepareSettings",),
    "semicdvl.data.prepare.published": ("PublishedDataset",),
    "semicdvl.data.prepare.results": ("PreparedPatches",),
    "semicdvl.detection.batch.outcomes": ("BatchResult",),
    "semicdvl.detection.changes": ("ChangeSummary",),
    "semicdvl.detection.config": ("DetectionConfig",),
    "semicdvl.detection.detectors.onnx.export": ("OnnxExport",),
    "semicdvl.detection.inputs": ("ArrayImage",),
    "semicdvl.detection.pair_check.results": ("PairCheck",),
    "semicdvl.detection.results": ("DetectionResult",),
    "semicdvl.detection.run_record": ("SavedDetection",),
    "semicdvl.errors": (
        "CheckpointError",
        "ConfigError",
        "DataError",
        "DivergedError",
        "InputError",
        "MissingExtraError",
        "OutputError",
        "SemicdvlError",
        "StoreError",
        "WorkerError",
    ),
    "semicdvl.evaluation.active_learning.select": ("PatchSuggestions", "SuggestConfig"),
    "semicdvl.evaluation.evaluate": ("MapEvaluation",),
    "semicdvl.methods": ("create_method", "list_methods"),
    "semicdvl.models": ("create_model", "list_models"),
    "semicdvl.official": ("ImportedCheckpoint",),
    "semicdvl.pseudo_labels.quality": ("FillResult",),
    "semicdvl.review.settings": ("ServeConfig",),
    "semicdvl.synthetic.city": ("SyntheticCity",),
    "semicdvl.synthetic.config": ("CitySpec",),
    "semicdvl.synthetic.generate": ("generate_city",),
    "semicdvl.training.run_record": ("TrainedRun",),
    "semicdvl.training.self_training.config": ("AdaptConfig",),
    "semicdvl.training.self_training.run": ("AdaptResult",),
    "semicdvl.types": (
        "IGNORE",
        "Detector",
        "Instance",
        "Method",
        "Outputs",
        "PairFiles",
        "ReadingSettings",
        "Segments",
        "VLM",
        "VLMLabels",
    ),
    "semicdvl.vlms": ("create_vlm", "list_vlms"),
}
"""Module -> the names of it that the package offers."""
_MODULES = {name: module for module, names in _EXPORTS.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'semicdvl' has no attribute '{name}'")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, whether they are imported yet or not."""
    return sorted({*globals(), *__all__})
