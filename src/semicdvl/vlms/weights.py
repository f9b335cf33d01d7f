"""Weights of a VLM: a folder on disk, or a name on the model hub, which is downloaded to a folder once.

A name is searched for in the hub's cache first; only if it is missing there is the hub contacted, once and with a short
timeout, so that a machine without a network gets one clear error at once. The files of the folder are what is loaded:
nothing is looked up again later, and equal files mean equal predictions. Weights are safetensors; a repository without
any may have `pytorch_model.bin`, read with `weights_only` (tensors, no code). No code of a repository is ever run.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from semicdvl.atomic_files import hash_file, hash_values
from semicdvl.errors import InputError, MissingExtraError
from semicdvl.reading.json_files import read_json, read_model
from semicdvl.reading.regular_files import is_file

log = logging.getLogger("semicdvl")

HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
SAFETENSORS_NAME = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
PICKLE_NAME = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin(\.index\.json)?")
CONFIG_SUFFIXES = {".json", ".txt", ".model", ".jinja"}
HUB_TIMEOUT_S = 5.0
"""A hub that does not respond within this counts as out of reach."""
MAX_MISSING_FRAC = 0.02
"""If more than this share of the tensors is missing, the folder has another model; otherwise a warning is given."""


@dataclass(frozen=True)
class WeightsSpec:
    """Describe the weights that a VLM needs, and how a user gets them.

    Attributes:
        vlm_name: name of the VLM.
        default_name: name on the model hub that is used unless another is given.
        model_types: what `config.json` may call the architecture.
        gated: whether the hub requires that the licence is accepted first.
        option: option of the command line that names it.
    """

    vlm_name: str
    default_name: str
    model_types: tuple[str, ...]
    gated: bool = False
    option: str = "--weights "

    def describe_download(self, name: str) -> str:
        """Describe how to get the weights onto a machine without a network."""
        local = name.rpartition("/")[2]
        first = "accept the licence on its page, then " if self.gated else ""
        login = "`hf auth login` and " if self.gated else ""
        return (
            f"On a machine with a network, {first}run {login}`hf download {name} --local-dir {local}`; "
            f"copy the folder here and give --vlm {self.vlm_name} {self.option}{local}"
        )


@dataclass(frozen=True)
class WeightsFolder:
    """Hold a folder with all files that a model needs."""

    folder: Path

    @property
    def is_safetensors(self) -> bool:
        """Whether the weights are safetensors."""
        return any(SAFETENSORS_NAME.fullmatch(path.name) for path in self.folder.iterdir())

    def compute_fingerprint(self) -> str:
        """Hash the weights, settings and vocabulary, not the folder's name, to 12 hex digits."""
        return fingerprint_files(_files_to_load(self.folder.iterdir(), safe=self.is_safetensors))


def fingerprint_files(paths: Iterable[Path]) -> str:
    """Hash names and contents of files to 12 hex digits."""
    return hash_values(sorted((path.name, hash_file(path)) for path in paths))[:12]


def _files_to_load(paths: Iterable[Path], *, safe: bool) -> list[Path]:
    """Return the files of a folder that are loaded."""
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
def find_weights(source: Path | str | None, spec: WeightsSpec) -> WeightsFolder:
    """Return the folder of weights at a path or of a hub name, which is downloaded if it must be.

    Args:
        source: a folder, or a name on the model hub; None for the VLM's default.
        spec: what the VLM needs.

    Raises:
        MissingExtraError: `transformers` is not installed.
        InputError: no such folder or name, no weights in it, those of another model, or the hub is out of reach.
    """
    require_transformers(spec.vlm_name)
    folder = Path(spec.default_name if source is None else source)
    if not folder.is_dir():
        if folder.is_file() or not HUB_NAME.fullmatch(str(folder)):
            raise InputError(
                folder, f"is no folder of weights for '{spec.vlm_name}'", spec.describe_download(spec.default_name)
            )
        folder = _download_from_hub(str(folder), spec)
    _check_architecture(folder, spec)
    return WeightsFolder(folder)


def require_transformers(vlm: str) -> None:
    """Raise MissingExtraError where `transformers` is not installed."""
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"the VLM '{vlm}' needs transformers: install semicdvl[vlm] ({error}).") from None


def _download_from_hub(name: str, spec: WeightsSpec) -> Path:
    """Return the folder of a downloaded name; download it where it is missing."""
    from huggingface_hub import HfApi, constants, errors, snapshot_download

    with contextlib.suppress(errors.LocalEntryNotFoundError, errors.HFValidationError):
        # one file only: otherwise a download without other files of the repository counts as incomplete
        folder = Path(snapshot_download(name, local_files_only=True, allow_patterns=["config.json"]))
        if (folder / "config.json").is_file() and _is_complete(folder):
            return folder
    remedy = spec.describe_download(name)
    if constants.HF_HUB_OFFLINE:
        raise InputError(name, "is not in the cache, and HF_HUB_OFFLINE forbids contacting the model hub", remedy)
    try:
        info = HfApi().model_info(name, timeout=HUB_TIMEOUT_S)
        files = [item.rfilename for item in info.siblings or [] if "/" not in item.rfilename]
        safe = any(SAFETENSORS_NAME.fullmatch(file) for file in files)
        loaded = [str(path) for path in _files_to_load(map(Path, files), safe=safe)]
        return Path(snapshot_download(name, allow_patterns=loaded, etag_timeout=HUB_TIMEOUT_S))
    except errors.GatedRepoError as error:
        raise InputError(
            name, f"needs its licence accepted first on the model hub ({_summarise_error(error)})", remedy
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            name, "is neither a folder here nor a public model of the hub", "Check the name or the path"
        ) from error
    except Exception as error:  # any failure of a network
        problem = f"is not on this machine, and the model hub can't be reached ({_summarise_error(error)})"
        raise InputError(name, problem, remedy) from error


def _summarise_error(error: Exception) -> str:
    """Return the first line of an error's text, or its type; never torch's advice to switch its protection off."""
    if "weights_only" in str(error):
        return "a pickled file that is damaged, or contains more than tensors; nothing in it was run"
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


class _Index(BaseModel):
    """What is read of the index of a model that is kept in several files."""

    weight_map: dict[str, str]


def _is_complete(folder: Path) -> bool:
    """Tell whether all weight files that the folder's index names are there."""
    for index in (folder / "model.safetensors.index.json", folder / "pytorch_model.bin.index.json"):
        if index.is_file():
            try:
                names = set(read_model(index, _Index, remedy="").weight_map.values())
            except InputError:
                return False
            return all(is_file(folder / name) for name in names)
    return any((folder / name).is_file() for name in ("model.safetensors", "pytorch_model.bin"))


def _check_architecture(folder: Path, spec: WeightsSpec) -> None:
    """Refuse a folder without weights, or of another architecture."""
    remedy = f"Give the folder that `hf download {spec.default_name}` wrote, complete, for --vlm {spec.vlm_name}"
    config = read_json(folder / "config.json", remedy=remedy)
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in spec.model_types:
        raise InputError(folder, f"has a model of type '{kind}', not of {' or '.join(spec.model_types)}", remedy)
    if not _is_complete(folder):
        raise InputError(folder, "has no weights, or not all of them (model.safetensors)", remedy)


# ------------------------------------------------------------------------------------------------ loading
def load_transformers_model(
    model_class: Any, weights: WeightsFolder, *, device: torch.device, dtype: torch.dtype
) -> Any:
    """Load a model of `transformers` in evaluation mode.

    Raises:
        InputError: the files are damaged, or another model's.
    """
    remedy = "Download it again, or give the weights of the right model"
    try:
        with silence_transformers():
            model, facts = model_class.from_pretrained(
                str(weights.folder),
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=weights.is_safetensors,
                weights_only=True,
                output_loading_info=True,
            )
    except Exception as error:  # safetensors, JSON, sizes, missing files: all depends on the folder's content
        kind = model_class.__name__
        raise InputError(weights.folder, f"cannot be loaded as {kind} ({_summarise_error(error)})", remedy) from error
    missing, count = facts["missing_keys"], len(model.state_dict())
    if len(missing) > MAX_MISSING_FRAC * count:
        problem = f"lacks {len(missing)} of the {count} tensors of {model_class.__name__}"
        raise InputError(weights.folder, f"{problem}, such as {', '.join(sorted(missing)[:3])}", remedy)
    if missing:
        log.warning(
            "%s: %d tensors are missing and keep random values: %s", weights.folder, len(missing), sorted(missing)
        )
    return model.eval().requires_grad_(False).to(device)


def load_processor(part_class: Any, weights: WeightsFolder) -> Any:
    """Load a processor or tokenizer of `transformers`.

    Raises:
        InputError: its files are missing or damaged.
    """
    try:
        with silence_transformers():
            return part_class.from_pretrained(str(weights.folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise InputError(
            weights.folder,
            f"has no usable files for {part_class.__name__} ({_summarise_error(error)})",
            "Download the whole folder, with its tokenizer and preprocessor files",
        ) from error


@contextlib.contextmanager
def silence_transformers() -> Iterator[None]:
    """Keep `transformers` from printing progress bars and reports; our own errors state what matters."""
    import transformers

    hf_logging: Any = transformers.utils.logging

    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
