"""Weights of a VLM: a folder on disk, or a name on the model hub, which becomes a folder once and for all.

A name is looked for among what was downloaded before; only when it isn't there is the hub asked, once and with a short
timeout, so that a machine without a network gets one clear sentence at once. What is in the folder is what is loaded:
nothing is looked up again later, and equal files mean equal answers. Weights are safetensors; a repository that has
none may bring `pytorch_model.bin`, read with `weights_only` (tensors, no code). No code of a repository is ever run.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from semicdvl.atomic_files import hash_file, hash_values, read_json
from semicdvl.errors import ConfigError, InputError, MissingExtraError

log = logging.getLogger("semicdvl")

HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
SAFETENSORS_NAME = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
PICKLE_NAME = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin(\.index\.json)?")
CONFIG_SUFFIXES = {".json", ".txt", ".model", ".jinja"}
HUB_TIMEOUT_S = 5.0
"""A hub that doesn't answer within this is taken as out of reach."""
MAX_MISSING_FRAC = 0.02
"""From this share of tensors missing on, a folder holds another model; below, a warning is given."""


@dataclass(frozen=True)
class WeightsSpec:
    """What a VLM needs, and how its user gets it.

    Attributes:
        vlm_name: name of the VLM.
        default_name: name on the model hub that is taken unless another is given.
        model_types: what `config.json` may call the architecture.
        gated: the hub wants the licence accepted before.
        option: how the command line takes it.
    """

    vlm_name: str
    default_name: str
    model_types: tuple[str, ...]
    gated: bool = False
    option: str = "--weights "

    def describe_download(self, name: str) -> str:
        """Say how weights come onto a machine without a network."""
        local = name.rpartition("/")[2]
        first = "accept the licence on its page, then " if self.gated else ""
        login = "`hf auth login` and " if self.gated else ""
        return (
            f"Where there is a network, {first}run {login}`hf download {name} --local-dir {local}`; "
            f"copy the folder here and give --vlm {self.vlm_name} {self.option}{local}"
        )


@dataclass(frozen=True)
class WeightsFolder:
    """A folder with everything that a model needs."""

    folder: Path

    @property
    def is_safetensors(self) -> bool:
        """Whether the weights are safetensors."""
        return any(SAFETENSORS_NAME.fullmatch(path.name) for path in self.folder.iterdir())

    def compute_fingerprint(self) -> str:
        """Return 12 hex digits over the weights, settings and vocabulary, whatever the folder is called."""
        return fingerprint_files(_files_to_load(self.folder.iterdir(), safe=self.is_safetensors))


def fingerprint_files(paths: Iterable[Path]) -> str:
    """Return 12 hex digits over names and contents of files."""
    return hash_values(sorted((path.name, hash_file(path)) for path in paths))[:12]


def _files_to_load(paths: Iterable[Path], *, safe: bool) -> list[Path]:
    """Return which files of a folder are loaded."""
    weights = SAFETENSORS_NAME if safe else PICKLE_NAME
    return [
        path
        for path in paths
        if weights.fullmatch(path.name)
        or (
            path.suffix in CONFIG_SUFFIXES
            and not (SAFETENSORS_NAME.fullmatch(path.name) or PICKLE_NAME.fullmatch(path.name))
        )
    ]


# ------------------------------------------------------------------------------------------------ finding
def find_weights(source: Path | str | None, wanted: WeightsSpec) -> WeightsFolder:
    """Return the folder of weights that a path or a name stands for; a name is downloaded if it must be.

    Args:
        source: a folder, or a name on the model hub; None for the VLM's default.
        wanted: what the VLM needs.

    Raises:
        MissingExtraError: `transformers` is not installed.
        InputError: no such folder or name, no weights in it, those of another model, or the hub is out of reach.
    """
    require_transformers(wanted.vlm_name)
    folder = Path(wanted.default_name if source is None else source)
    if not folder.is_dir():
        if folder.is_file() or not HUB_NAME.fullmatch(str(folder)):
            raise InputError(
                folder, f"no folder of weights for '{wanted.vlm_name}'", wanted.describe_download(wanted.default_name)
            )
        folder = _download_from_hub(str(folder), wanted)
    _check_architecture(folder, wanted)
    return WeightsFolder(folder)


def require_transformers(vlm: str) -> None:
    """Raise MissingExtraError where `transformers` is not installed."""
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"the VLM '{vlm}' needs transformers: install semicdvl[vlm] ({error}).") from None


def _download_from_hub(name: str, wanted: WeightsSpec) -> Path:
    """Return the folder of a downloaded name; download it where it is missing."""
    from huggingface_hub import HfApi, constants, errors, snapshot_download

    with contextlib.suppress(errors.LocalEntryNotFoundError, errors.HFValidationError):
        # asked for one file only: else a download that left out other files of the repository counts as incomplete
        folder = Path(snapshot_download(name, local_files_only=True, allow_patterns=["config.json"]))
        if (folder / "config.json").is_file() and _is_complete(folder):
            return folder
    remedy = wanted.describe_download(name)
    if constants.HF_HUB_OFFLINE:
        raise InputError(name, "not downloaded before, and HF_HUB_OFFLINE forbids asking the model hub", remedy)
    try:
        info = HfApi().model_info(name, timeout=HUB_TIMEOUT_S)
        files = [item.rfilename for item in info.siblings or [] if "/" not in item.rfilename]
        safe = any(SAFETENSORS_NAME.fullmatch(file) for file in files)
        loaded = [str(path) for path in _files_to_load(map(Path, files), safe=safe)]
        return Path(snapshot_download(name, allow_patterns=loaded, etag_timeout=HUB_TIMEOUT_S))
    except errors.GatedRepoError as error:
        raise InputError(
            name, f"the hub wants its licence accepted first ({_summarise_error(error)})", remedy
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            name, "neither a folder here nor a public model of the hub", "Check the name or the path"
        ) from error
    except Exception as error:  # whatever a network can do wrong
        problem = f"not on this machine, and the model hub can't be reached ({_summarise_error(error)})"
        raise InputError(name, problem, remedy) from error


def _summarise_error(error: Exception) -> str:
    """Return the first line of an error's text, or its kind; never torch's advice to switch its protection off."""
    if "weights_only" in str(error):
        return "a pickled file that is broken, or holds more than tensors; nothing in it was run"
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _is_complete(folder: Path) -> bool:
    """Tell whether all weight files that the folder speaks of are there."""
    for index in (folder / "model.safetensors.index.json", folder / "pytorch_model.bin.index.json"):
        if index.is_file():
            try:
                names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            except (ValueError, KeyError, AttributeError):
                return False
            return all((folder / name).is_file() for name in names)
    return any((folder / name).is_file() for name in ("model.safetensors", "pytorch_model.bin"))


def _check_architecture(folder: Path, wanted: WeightsSpec) -> None:
    """Refuse a folder without weights, or of another architecture."""
    remedy = f"Give the folder that `hf download {wanted.default_name}` wrote, complete, for --vlm {wanted.vlm_name}"
    config = read_json(folder / "config.json", remedy=remedy)
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in wanted.model_types:
        raise InputError(folder, f"holds a model of type '{kind}', wanted {' or '.join(wanted.model_types)}", remedy)
    if not _is_complete(folder):
        raise InputError(folder, "holds no weights, or not all of them (model.safetensors)", remedy)


# ------------------------------------------------------------------------------------------------ loading
def load_transformers_model(
    model_class: Any, weights: WeightsFolder, *, device: torch.device, dtype: torch.dtype
) -> Any:
    """Load a model of `transformers` in evaluation mode.

    Raises:
        InputError: the files are damaged, or hold another model.
    """
    remedy = "Download it again, or give the weights of the right model"
    try:
        with _silence_transformers():
            model, facts = model_class.from_pretrained(
                str(weights.folder),
                dtype=dtype,
                local_files_only=True,
                use_safetensors=weights.is_safetensors,
                weights_only=True,
                output_loading_info=True,
            )
    except Exception as error:  # safetensors, JSON, sizes, missing files: all of it is the folder's content
        kind = model_class.__name__
        raise InputError(weights.folder, f"cannot be loaded as {kind} ({_summarise_error(error)})", remedy) from error
    missing, count = facts["missing_keys"], len(model.state_dict())
    if len(missing) > MAX_MISSING_FRAC * count:
        problem = f"lacks {len(missing)} of the {count} tensors of {model_class.__name__}"
        raise InputError(weights.folder, f"{problem}, such as {', '.join(sorted(missing)[:3])}", remedy)
    if missing:
        log.warning("%s: %d tensors are missing and stay random: %s", weights.folder, len(missing), sorted(missing))
    return model.eval().requires_grad_(False).to(device)


def load_processor(part_class: Any, weights: WeightsFolder) -> Any:
    """Load a processor or tokenizer of `transformers`.

    Raises:
        InputError: its files are missing or damaged.
    """
    try:
        with _silence_transformers():
            return part_class.from_pretrained(str(weights.folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise InputError(
            weights.folder,
            f"has no usable files for {part_class.__name__} ({_summarise_error(error)})",
            "Download the whole folder, with its tokenizer and preprocessor files",
        ) from error


@contextlib.contextmanager
def _silence_transformers() -> Iterator[None]:
    """Keep `transformers` from drawing bars and reports; what matters is said by our own errors."""
    import transformers

    theirs: Any = transformers.utils.logging

    level, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(level)
        if bars:
            theirs.enable_progress_bar()


# ------------------------------------------------------------------------------------------------ where it runs
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(device: str) -> torch.device:
    """Return a torch device; "auto" is the GPU where there is one.

    Raises:
        ConfigError: there is no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"no device '{device}' here ({_summarise_error(error)}); use auto, cpu, cuda or cuda:0."
        ) from None
    return chosen


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Return the numbers that a network computes with; "auto" is bfloat16 on a GPU and float32 elsewhere.

    Raises:
        ConfigError: an unknown name.
    """
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise ConfigError(f"unknown dtype '{dtype}'. Known: auto, {', '.join(DTYPES)}.")
    return DTYPES[dtype]
