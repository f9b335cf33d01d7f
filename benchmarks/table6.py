"""Table 6 of the paper: the quality of the VLM's change labels by level and confidence threshold, beside its figures.

    semicdvl pseudo data/LEVIR-CD-256 -o runs/store-levir --vlm precomputed --vlm-from data/ape --gamma 0.8
    python benchmarks/table6.py data/LEVIR-CD-256 runs/store-levir --split test

Every row is made from the stored answers; the VLM is not asked. *Total*: pixels without a label count as unchanged;
*valid*: over the pixels with a label, whose share is the ratio. The published figures are of APE-D on LEVIR-CD's test
pairs, and comparable with a store of those answers alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semicdvl.ceg.config import CEGSettings
from semicdvl.data.pairs import read_pair
from semicdvl.data.readers.folder import read_folder
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.pseudo_labels.quality import LABEL_VALUES, read_answered_pair
from semicdvl.pseudo_labels.store import PseudoLabelStore
from semicdvl.types import IGNORE, PairFiles


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: level and threshold.
        settings: of change event generation.
        published: IoU and F1 in total, IoU and F1 over the valid pixels, and their share, in per cent; None: not given.
    """

    name: str
    settings: CEGSettings
    published: tuple[float | None, ...]


ROWS = (
    Row("pixel 0.1", CEGSettings(level="pixel", gamma=0.1), (36.9, 53.9, 41.2, 58.4, 71.9)),
    Row("pixel 0.5", CEGSettings(level="pixel", gamma=0.5), (41.4, 58.5, 54.4, 70.5, 55.4)),
    Row("pixel 0.8", CEGSettings(level="pixel", gamma=0.8), (31.7, 48.2, 65.7, 79.3, 34.4)),
    Row("instance", CEGSettings(level="instance"), (46.3, 63.3, None, None, None)),
    Row("pixel 0.8 + instance", CEGSettings(level="mixed", gamma=0.8), (32.3, 48.8, 69.3, 81.9, 34.4)),
)


def measure_row(row: Row, pairs: Sequence[PairFiles], store: PseudoLabelStore) -> tuple[float, ...]:
    """Return the figures of a row, in per cent and in the order of `Row.published`."""
    total, valid, known_px, all_px = ConfusionCounts(), ConfusionCounts(), 0, 0
    for pair in pairs:
        answered = read_answered_pair(pair, store, settings=row.settings)
        change_HW = answered.make_labels(store.spec, row.settings).change_HW
        truth_HW = read_pair(pair, label_values=LABEL_VALUES).label_HW
        assert truth_HW is not None, "the pairs have labels"
        known_HW = change_HW != IGNORE
        total += ConfusionCounts.from_maps((change_HW == 1).astype(np.uint8), truth_HW)
        valid += ConfusionCounts.from_maps(change_HW, np.where(known_HW, truth_HW, IGNORE))
        known_px, all_px = known_px + int(known_HW.sum()), all_px + known_HW.size
    return tuple(100 * each for each in (total.iou, total.f1, valid.iou, valid.f1, known_px / max(all_px, 1)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the data set: A/, B/, label/ and lists")
    parser.add_argument("store", type=Path, help="folder that `semicdvl pseudo` wrote")
    parser.add_argument("--split", default="test", choices=("train", "val", "test", "all"))
    options = parser.parse_args()
    data, store = read_folder(options.data), PseudoLabelStore.open(options.store)
    chosen = data.pairs if options.split == "all" else data.select_subset(options.split)
    pairs = [pair for pair in chosen if pair.has_label]
    print(f"{len(pairs)} pairs with a label; {store.spec.vlm}. In brackets: as published, of APE-D on LEVIR-CD.\n")
    print("| label | IoU total | F1 total | IoU valid | F1 valid | ratio |\n|---|---|---|---|---|---|")
    for row in ROWS:
        told = zip(measure_row(row, pairs, store), row.published, strict=True)
        cells = [f"{own:.1f}" + ("" if theirs is None else f" ({theirs})") for own, theirs in told]
        print(f"| {row.name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
