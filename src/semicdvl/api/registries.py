"""List the parts that are known by name, and register more: one function of each for every kind."""

from __future__ import annotations

from semicdvl.data import DATASETS
from semicdvl.methods import METHODS
from semicdvl.models import MODELS
from semicdvl.registry import Builder, register_builder
from semicdvl.unsupervised import UNSUPERVISED
from semicdvl.vlms import VLMS


def list_datasets() -> tuple[str, ...]:
    """List the names of the readers that `load_dataset` and the recipes know.

    Examples:
        >>> import semicdvl as cd
        >>> "levir_cd" in cd.list_datasets()
        True
    """
    return tuple(DATASETS)


def list_detectors() -> tuple[str, ...]:
    """List the names of the unsupervised detectors that `create_detector` knows.

    Examples:
        >>> import semicdvl as cd
        >>> "pca_km" in cd.list_detectors()
        True
    """
    return tuple(UNSUPERVISED)


def list_prompt_sets() -> tuple[str, ...]:
    """List the names of the shipped sets of prompts.

    Examples:
        >>> import semicdvl as cd
        >>> "buildings" in cd.list_prompt_sets()
        True
    """
    from semicdvl.ceg.prompts import PROMPT_SETS

    return tuple(PROMPT_SETS)


def register_model(name: str, builder: Builder | str) -> None:
    """Register a network, so that recipes and `create_model` know it by name in this process.

    Worker processes and other runs of the program only know the name if they register it too: call this function in
    a module that they import, or name the network `package.module:builder`, which works everywhere.

    Args:
        name: a new name.
        builder: a function or class at the top level of a module that returns the network (see the package
            `semicdvl.models` for what a network must offer), or its import path `package.module:builder`.

    Raises:
        ConfigError: the name is taken, or the builder cannot be imported by its path.

    Examples:
        >>> import semicdvl as cd
        >>> cd.register_model("my_network", "semicdvl.models.fc_siam:build_fc_ef")
        >>> "my_network" in cd.list_models()
        True
    """
    register_builder("model", name, builder, MODELS)


def register_method(name: str, builder: Builder | str) -> None:
    """Register a training method, so that recipes and `create_method` know it by name in this process.

    Args:
        name: a new name; see `register_model` for which processes know it.
        builder: a frozen dataclass with `step` (see the package `semicdvl.methods`), or its import path.

    Raises:
        ConfigError: the name is taken, or the builder cannot be imported by its path.

    Examples:
        >>> import semicdvl as cd
        >>> cd.register_method("my_method", "semicdvl.methods.supervised:Supervised")
        >>> cd.create_method("my_method").uses_unlabelled
        False
    """
    register_builder("method", name, builder, METHODS)


def register_vlm(name: str, builder: Builder | str) -> None:
    """Register a vision-language model, so that `create_vlm` and the commands know it by name in this process.

    Args:
        name: a new name; see `register_model` for which processes know it.
        builder: a function or class that returns a `semicdvl.VLM`, or its import path.

    Raises:
        ConfigError: the name is taken, or the builder cannot be imported by its path.

    Examples:
        >>> import semicdvl as cd
        >>> cd.register_vlm("my_vlm", "semicdvl.vlms.models.fake:build_fake")
        >>> "my_vlm" in cd.list_vlms()
        True
    """
    register_builder("VLM", name, builder, VLMS)


def register_detector(name: str, builder: Builder | str) -> None:
    """Register an unsupervised detector, so that `create_detector` and `detect` know it by name in this process.

    Args:
        name: a new name; see `register_model` for which processes know it.
        builder: a function or class that returns a `semicdvl.Detector`, or its import path. An argument called
            `features`, `sam` or `clip` is given that network.

    Raises:
        ConfigError: the name is taken, or the builder cannot be imported by its path.

    Examples:
        >>> import semicdvl as cd
        >>> cd.register_detector("my_detector", "semicdvl.unsupervised.cva:build_cva")
        >>> cd.create_detector("my_detector").name
        'cva'
    """
    register_builder("detector", name, builder, UNSUPERVISED)


def register_dataset(name: str, builder: Builder | str) -> None:
    """Register a reader of data sets, so that recipes and `load_dataset` know it by name in this process.

    Args:
        name: a new name; see `register_model` for which processes know it.
        builder: a function `read(root, ...) -> ChangeDataset`, or its import path.

    Raises:
        ConfigError: the name is taken, or the builder cannot be imported by its path.

    Examples:
        >>> import semicdvl as cd
        >>> cd.register_dataset("my_dataset", "semicdvl.data.readers.folder:read_folder")
        >>> "my_dataset" in cd.list_datasets()
        True
    """
    register_builder("data set", name, builder, DATASETS)
