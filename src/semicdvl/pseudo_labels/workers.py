"""What the worker processes of pseudo-label generation build their parts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.features import FeatureExtractor
from semicdvl.errors import ConfigError, StoreError
from semicdvl.pseudo_labels.generate import PseudoLabeler
from semicdvl.pseudo_labels.store import CEG_FEATURES_KEY, PseudoLabelStore
from semicdvl.pseudo_labels.store_spec import StoreSpec
from semicdvl.types import VLM

EXECUTORS = ("local", "ray")
"""Names of the executors: processes of this machine, or actors of a Ray cluster."""


@dataclass(frozen=True)
class WorkerSettings:
    """How many workers generate labels, and how each of them builds its VLM; sent to other processes.

    Attributes:
        build_vlm: builds the VLM; a function of a module, perhaps with arguments (`functools.partial`).
        build_features: builds the feature extractor, or None.
        workers: number of processes.
        engine: name of the executor, one of `EXECUTORS`.
        quiet: show no progress.
    """

    build_vlm: Callable[[], VLM]
    build_features: Callable[[], FeatureExtractor] | None = None
    workers: int = 1
    engine: str = "local"
    quiet: bool = False

    def __post_init__(self) -> None:
        """Refuse an unknown executor and less than one worker.

        Raises:
            ConfigError: one of these.
        """
        if self.engine not in EXECUTORS or self.workers < 1:
            raise ConfigError(
                f"engine '{self.engine}' with {self.workers} workers: give local or ray, and at least one worker."
            )

    @property
    def runs_in_process(self) -> bool:
        """Whether the work is done in the process that asks for it."""
        return self.engine == "local" and self.workers == 1

    def build_labeler(self, root: Path, spec: StoreSpec, settings: CEGSettings) -> PseudoLabeler:
        """Build the VLM and the feature extractor, and return what labels pairs with them.

        Raises:
            StoreError: the VLM built here differs from the one of the store, or the features do.
        """
        vlm = self.build_vlm()
        features = None if self.build_features is None else self.build_features()
        if vlm.identity != spec.vlm:
            raise StoreError(
                f"{root}: a worker has the VLM {vlm.identity}, but the store is made with {spec.vlm}. "
                "All machines need the same weights and the same versions."
            )
        wanted = spec.ceg.get(CEG_FEATURES_KEY)
        if features is not None and features.identity != wanted:
            raise StoreError(
                f"{root}: a worker has the features {features.identity}, but the store is made with {wanted}. "
                "All machines need the same weights and the same versions."
            )
        return PseudoLabeler(PseudoLabelStore(root, spec), settings, vlm, features)
