"""The patches of a server that labels: read, propose, store."""

from __future__ import annotations

import hashlib
import threading
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.data.patch_files import CHANGED, UNCHANGED, UNKNOWN
from semicdvl.review.labels.proposals import Proposer
from semicdvl.review.labels.sources import FolderPatches, LabelSource, PatchImages, read_stored_mask
from semicdvl.review.labels.superpixels import Detail, segment_image
from semicdvl.review.labels.training import (
    MAX_FEW_LABELLED,
    RECIPE_FILE,
    choose_prompts,
    list_commands,
    split_for_validation,
    write_lists,
    write_recipe,
)
from semicdvl.review.session import PairSession
from semicdvl.review.settings import ServeConfig
from semicdvl.review.store import Conflict

NO_LABEL = "none"
"""Version of a patch without a label."""


class NoSuchPatch(Exception):
    """A request names a patch that is not served."""


class BadMask(Exception):
    """A mask that cannot be a label; the message says why."""


class LabelSession:
    """The labelling of one training set; any thread may ask it."""

    def __init__(self, source: LabelSource, *, session: PairSession | None, config: ServeConfig) -> None:
        """Label the patches of a source.

        Args:
            source: the patches.
            session: the pair that they are cut from, if any.
            config: the settings.
        """
        self.source, self.session = source, session
        self._proposer = Proposer(config.prompts)
        self._prompts = choose_prompts(session.pair.facts if session else None, config)
        self._write_lock = threading.Lock()
        self._read_images = lru_cache(maxsize=16)(source.read_images)
        self._segment = lru_cache(maxsize=24)(self._segment_date)
        self._propose = lru_cache(maxsize=64)(self._make_proposal)

    def _require(self, name: str) -> None:
        if name not in self.source.names:
            raise NoSuchPatch("There is no such patch.")

    def read_images(self, name: str) -> PatchImages:
        """Return the images of a patch.

        Raises:
            NoSuchPatch: there is none.
            InputError, DataError: the images cannot be used.
        """
        self._require(name)
        return self._read_images(name)

    def segment(self, name: str, date: str, detail: Detail) -> NDArray[np.int32]:
        """Return the segments of a date of a patch, see `superpixels`."""
        self._require(name)
        return self._segment(name, date, detail)

    def _segment_date(self, name: str, date: str, detail: Detail) -> NDArray[np.int32]:
        images = self._read_images(name)
        return segment_image(images.t1_HWC if date == "before" else images.t2_HWC, detail=detail)

    def propose(self, name: str) -> NDArray[np.uint8]:
        """Return the mask that a patch begins with."""
        self._require(name)
        return self._propose(name)

    def _make_proposal(self, name: str) -> NDArray[np.uint8]:
        known_HW = self.source.read_proposal(name)
        images = self._read_images(name)
        mask_HW = self._proposer.propose(images) if known_HW is None else known_HW
        return np.where(images.valid_HW, mask_HW, UNKNOWN).astype(np.uint8)

    def read_label(self, name: str) -> NDArray[np.uint8] | None:
        """Return the stored label of a patch; None where there is none."""
        self._require(name)
        return read_stored_mask(self.source.get_label_path(name))

    def get_version(self, name: str) -> str:
        """Return what names the present label of a patch."""
        self._require(name)
        path = self.source.get_label_path(name)
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else NO_LABEL

    def write(self, name: str, mask_HW: NDArray[np.uint8], *, version: str) -> None:
        """Store the label of a patch, and lists and recipe of the training set.

        Raises:
            NoSuchPatch: there is no such patch.
            BadMask: it has another size or other values than those of a label.
            Conflict: somebody else labelled the patch in between.
            OutputError: the folder cannot be written.
        """
        images = self.read_images(name)
        if mask_HW.shape != images.valid_HW.shape:
            tall, wide = images.valid_HW.shape
            raise BadMask(f"The mask has {mask_HW.shape[1]} x {mask_HW.shape[0]} px, but the patch {wide} x {tall} px.")
        strange = set(np.unique(mask_HW).tolist()) - {UNCHANGED, UNKNOWN, CHANGED}
        if strange:
            raise BadMask(f"The mask holds {sorted(strange)[:4]}; its values are 0, 128 (not known) and 255 (changed).")
        with self._write_lock:
            if version != self.get_version(name):
                raise Conflict("This patch was labelled in another window in the meantime.")
            self.source.write(name, np.where(images.valid_HW, mask_HW, UNKNOWN).astype(np.uint8))
            self._write_training_set()

    def list_labelled(self) -> set[str]:
        """Return the patches that have a label."""
        return {name for name in self.source.names if self.source.get_label_path(name).is_file()}

    def _write_training_set(self) -> None:
        """Write lists and recipe for the labels as they are now."""
        source, labelled = self.source, self.list_labelled()
        has_val = len(labelled) > MAX_FEW_LABELLED
        if source.owns_lists:
            train, val = split_for_validation(source.names, labelled) if has_val else (sorted(labelled), [])
            write_lists(source.root, train, val)
        own_lists = isinstance(source, FolderPatches) and source.has_lists
        sides = [min(self._read_images(name).valid_HW.shape) for name in sorted(labelled)[:1]]
        write_recipe(
            source.root,
            labels=[source.get_label_path(name) for name in sorted(labelled)],
            patch_px=min(sides),
            gsd_m=source.gsd_m,
            prompts=self._prompts,
            validated=own_lists or has_val,
            own_lists=own_lists,
        )

    def describe(self) -> dict[str, Any]:
        """Return the patches, and the commands that train on what is labelled so far."""
        labelled = self.list_labelled()
        patches = [
            {"name": name, "labelled": name in labelled, "note": self.source.describe(name)}
            for name in self.source.names
        ]
        ready = (self.source.root / RECIPE_FILE).is_file()
        return {
            "folder": str(self.source.root),
            "labelled": len(labelled),
            "patches": patches,
            "commands": self._list_commands() if ready else [],
            "message": "" if ready else "The training command appears with the first label.",
        }

    def _list_commands(self) -> list[str]:
        if self.session is None:
            return list_commands(self.source.root, folder=self.source.root, before=None, after=None)
        config, facts = self.session.config, self.session.pair.facts
        assert facts is not None
        return list_commands(
            self.source.root,
            folder=self.session.pair.folder,
            before=config.before or facts.inputs.before.path,
            after=config.after or facts.inputs.after.path,
            settings=facts.given_settings,
        )
