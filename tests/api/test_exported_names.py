"""What `import semicdvl` offers is a public contract; importing it costs next to nothing."""

import ast
import importlib
import inspect
import subprocess
import sys
import time
from pathlib import Path

import pytest

import semicdvl

FUNCTIONS = """
adapt benchmark change_events check_pair combine_detectors create_detector create_method create_model
create_review_app create_vlm create_vlm_detector detect detect_pairs detect_to_folder draw_sample evaluate evaluate_map
export generate_city import_official
list_datasets list_detectors list_methods list_models list_prompt_sets list_vlms load load_dataset load_detector
load_model load_recipe load_suite prepare prepare_published pseudo_label register_dataset register_detector
register_method register_model register_vlm resolve_prompts run_demo serve suggest train verify_store
""".split()
SETTINGS = """
AdaptConfig ArrayImage CEGSettings CitySpec DetectionConfig PrepareSettings Prompts
ReadingSettings Recipe ServeConfig SuggestConfig Suite
""".split()
RESULTS = """
AdaptResult BatchResult BenchmarkResult ChangeDataset ChangeSummary DetectionResult FillResult ImportedCheckpoint
MapEvaluation OnnxExport PairCheck PatchSuggestions PreparedPatches PublishedDataset SavedDetection SyntheticCity
TrainedRun
""".split()
TYPES = "Detector IGNORE ImageSource Instance Method Outputs PairFiles Segments VLM VLMLabels".split()
ERRORS = """
CheckpointError ConfigError DataError DivergedError InputError MissingExtraError OutputError SemicdvlError StoreError
WorkerError
""".split()
POSITIONAL = ("name", "vlm", "out", "output", "run", "spec")
"""Optional arguments that may be given by place: the thing itself, or where it goes."""
EXPORTED = sorted(["__version__", *FUNCTIONS, *SETTINGS, *RESULTS, *TYPES, *ERRORS])


def test_exactly_these_names_are_exported() -> None:
    assert sorted(semicdvl.__all__) == EXPORTED
    assert set(EXPORTED) <= set(dir(semicdvl))


@pytest.mark.parametrize("name", EXPORTED)
def test_every_exported_name_can_be_imported(name: str) -> None:
    assert getattr(semicdvl, name) is not None


def test_type_checkers_see_what_is_imported_at_run_time() -> None:
    tree = ast.parse(Path(semicdvl.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen == semicdvl._MODULES


@pytest.mark.parametrize("name", [name for name in EXPORTED if name[0].islower()])
def test_arguments_after_the_data_are_keyword_only_and_typed(name: str) -> None:
    signature = inspect.signature(getattr(semicdvl, name))
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter
        is_option = parameter.default is not inspect.Parameter.empty
        positional = parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        assert not (is_option and positional) or parameter.name in POSITIONAL, parameter


@pytest.mark.parametrize("name", [*FUNCTIONS, *SETTINGS, *RESULTS, *ERRORS])
def test_every_public_name_is_documented(name: str) -> None:
    text = inspect.getdoc(getattr(semicdvl, name)) or ""
    assert text.splitlines()[0].endswith((".", ":")), name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'semicdvl' has no attribute 'detekt'"):
        semicdvl.detekt  # noqa: B018


def test_the_names_are_the_same_after_their_rooms_were_imported() -> None:
    importlib.import_module("semicdvl.benchmarking.run")
    assert callable(semicdvl.benchmark) and callable(semicdvl.evaluate) and callable(semicdvl.detect)


def _run(code: str) -> float:
    """Run code in a new process and return how long it took, in seconds."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def test_importing_loads_neither_torch_nor_numpy() -> None:
    heavy = "[name for name in ('torch', 'numpy', 'rasterio', 'pydantic') if name in sys.modules]"
    _run(f"import sys, semicdvl; sys.exit(str({heavy}) if {heavy} else 0)")


def test_listing_parts_does_not_load_torch() -> None:
    _run("import sys, semicdvl as cd; cd.list_models(), cd.list_vlms(); sys.exit('torch' in sys.modules)")


def test_importing_takes_a_fraction_of_a_second() -> None:
    extra = [_run("import semicdvl") - _run("pass") for _ in range(3)]
    assert min(extra) < 0.3
