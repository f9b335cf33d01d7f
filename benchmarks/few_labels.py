"""What 4, 8 and 16 labelled crops of real images are worth, on other images of the same source and on another source.

    python benchmarks/few_labels.py ../shared/data -o runs/few-labels
    python benchmarks/few_labels.py ../shared/data -o runs/few-labels --draws 1 --students 1    # usual networks, too

Sources: LEVIR-CD and FOTBCD, cut into crops of 256 px (`data.readers.real_pairs`). A draw takes a third of a source's
images, at random, for the test; the labelled crops are drawn from its other images, those that show change first, and
the rest of these is used without labels. On another source, the labelled crops are drawn from all images of one source,
and all of the other one is the test. No crop of a test image is trained on, and no test crop selects anything.

    no labels     `semicdvl detect` without labels
    Sup-only      recipes/few-labels-supervised.toml: the network of SemiCD-VL, trained on the labels alone
    SemiCD-VL     recipes/few-labels.toml
    ... student   recipes/small-*-aerial.toml: the embedded VLM's encoder, 300 steps (only with --students). The last
                  step counts: no crop is there to choose one by

IoU of the changed class over the pooled pixels of the test crops. Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from semicdvl.atomic_files import write_json
from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.features import AERIAL_ENCODER, build_feature_extractor
from semicdvl.ceg.prompts import PROMPT_SETS
from semicdvl.config import load_recipe
from semicdvl.data.change_dataset import ChangeDataset
from semicdvl.data.pairs import read_pair
from semicdvl.data.readers.real_pairs import REAL_PAIRS_GSD_M, read_real_pairs
from semicdvl.data.split_file import write_split
from semicdvl.pseudo_labels.generate import generate_labels
from semicdvl.reading.json_files import read_json
from semicdvl.training.distributed import ProcessGroup
from semicdvl.training.evaluate import evaluate_network
from semicdvl.training.few_labels.network import build_vlm_prior
from semicdvl.training.run import train_recipe
from semicdvl.types import PairFiles, Split
from semicdvl.vlms.aerial.build import build_aerial

SOURCES = ("levir", "fotbcd")
PROTOCOLS = ("own levir", "levir to fotbcd", "own fotbcd", "fotbcd to levir")
LABELLED = (8, 4, 16)
"""In the order in which they are run."""
DRAWS = (30, 31, 32, 33, 34)
"""Seeds of the draws; those of 0 to 14 were looked at while the recipe's values were chosen."""
ROWS = {
    "Sup-only": "few-labels-supervised",
    "SemiCD-VL": "few-labels",
}
STUDENTS = {
    "Sup-only, student": "small-supervised-aerial",
    "FixMatch, student": "small-fixmatch-aerial",
    "SemiCD-VL, student": "small-semicd_vl-aerial",
}
STORE_OF = {"few-labels": "store", "small-semicd_vl-aerial": "store-mixed"}
"""Recipe -> folder of the VLM's labels."""
AGAIN = " (again)"


@dataclass(frozen=True)
class Case:
    """A draw: which crops are labelled, which are used without a label, and which are tested on."""

    protocol: str
    count: int
    seed: int
    split: Split

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.protocol.replace(' ', '_')}-{self.count}-{self.seed}"


# ------------------------------------------------------------------------------------------------ draws
def list_cases(
    dataset: ChangeDataset, counts: Sequence[int] = LABELLED, seeds: Sequence[int] = DRAWS
) -> Iterator[Case]:
    """Yield all draws."""
    for count in counts:
        for source in SOURCES:
            other = next(one for one in SOURCES if one != source)
            for seed in seeds:
                rng = np.random.default_rng(seed)
                images = sorted({dataset.source_tiles[pair.name] for pair in dataset.pairs if is_of(pair, source)})
                tested = {str(image) for image in rng.permutation(images)[: max(1, len(images) // 3)]}
                pool = [pair for pair in dataset.pairs if is_of(pair, source)]
                held_out = tuple(pair for pair in pool if dataset.source_tiles[pair.name] in tested)
                rest = [pair for pair in pool if pair not in held_out]
                yield Case(f"own {source}", count, seed, draw_split(rest, held_out, count=count, seed=seed))
                others = tuple(pair for pair in dataset.pairs if is_of(pair, other))
                yield Case(f"{source} to {other}", count, seed, draw_split(pool, others, count=count, seed=seed))


def is_of(pair: PairFiles, source: str) -> bool:
    """Tell whether a crop is of a source, which may have two folders."""
    return pair.name.startswith(source)


def draw_split(pool: list[PairFiles], test: tuple[PairFiles, ...], *, count: int, seed: int) -> Split:
    """Draw the labelled crops, those with change first."""
    order = [pool[at] for at in np.random.default_rng(seed).permutation(len(pool))]
    order.sort(key=lambda pair: not np.any(read_pair(pair).label_HW == 1))
    labelled, unlabelled = tuple(order[:count]), tuple(order[count:])
    again = tuple(replace(pair, name=pair.name + AGAIN) for pair in labelled)
    return Split(labelled, unlabelled or again, (), test)


# ------------------------------------------------------------------------------------------------ runs
def measure(case: Case, row: str, recipe: str, *, root: Path, out: Path) -> float:
    """Return the IoU of a row on a draw, from the finished run where there is one."""
    folder = out / case.name
    split = folder / "split.json"
    if not split.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_split(split, case.split, root=root, notes={"seed": case.seed})
    common = [f"data.root={root}", f"data.split={split}", f"seed={case.seed}", "train.device=cpu"]
    common += ["train.select=last"]  # there is no validation crop
    if recipe.startswith("few-labels"):
        common += [f"model.gsd_m={REAL_PAIRS_GSD_M}"]
    if recipe in STORE_OF:
        common += [f"pseudo.store={out / STORE_OF[recipe]}"]
    done = train_recipe(load_recipe(recipe, overrides=tuple(common)), folder / row.replace(" ", "_"), quiet=True)
    return done.test["iou"]


def fill_stores(dataset: ChangeDataset, out: Path, *, students: bool) -> None:
    """Make the VLM's labels: the map without labels for the small network, mixed ones for the students."""
    vlm, words = build_aerial(), PROMPT_SETS["buildings"]
    stores = {"store": CEGSettings(level="residual")}
    if students:
        stores["store-mixed"] = CEGSettings(gamma=vlm.gamma, gamma_segmentation=vlm.gamma)
    for name, settings in stores.items():
        features = build_feature_extractor(AERIAL_ENCODER) if settings.vetoes_by_distance else None
        options = {"vlm": vlm, "prompts": words, "settings": settings, "features": features}
        for _ in generate_labels(dataset.pairs, root=out / name, gsd_m=REAL_PAIRS_GSD_M, **options):
            pass


def score_without_labels(case: Case, known: dict[str, list[int]]) -> float:
    """Return the IoU of `detect` without labels on a draw's test crops; counts of crops are kept in `known`."""
    missing = [pair for pair in case.split.test if pair.name not in known]
    network = build_vlm_prior(gsd_m=REAL_PAIRS_GSD_M).eval()
    for pair in missing:
        pixels = evaluate_network(
            network, [pair], processes=ProcessGroup(0, 1, next(network.parameters()).device)
        ).pixels
        known[pair.name] = [pixels.tp, pixels.fp, pixels.fn]
    total = np.sum([known[pair.name] for pair in case.split.test], axis=0)
    return float(total[0] / total.sum())


# ------------------------------------------------------------------------------------------------ table
def render(results: dict[str, dict[str, float]]) -> str:
    """Return the table: the mean over draws, and the mean and the least difference from no labels."""
    rows = list(dict.fromkeys(row for of_case in results.values() for row in of_case))
    grouped: dict[str, list[dict[str, float]]] = defaultdict(list)
    for name, of_case in results.items():
        grouped[name.rsplit("-", 1)[0]].append(of_case)
    lines = ["| tested on | labelled crops | " + " | ".join(rows) + " |", "|---" * (len(rows) + 2) + "|"]
    for name in sorted(
        grouped, key=lambda name: (not name.startswith("own"), name.rsplit("-", 1)[0], int(name.rsplit("-", 1)[1]))
    ):
        of_group = grouped[name]
        protocol, count = name.rsplit("-", 1)
        cells = [format_cell(row, of_group) for row in rows]
        lines.append(f"| {protocol.replace('_', ' ')} | {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def format_cell(row: str, of_group: list[dict[str, float]]) -> str:
    """Return the mean of a row, and how it differs from no labels: mean, deviation, least."""
    pairs = [(one[row], one["no labels"]) for one in of_group if row in one]
    if not pairs:
        return ""
    values, zero = np.array(pairs).T
    if row == "no labels":
        return f"{values.mean():.3f}"
    gain = values - zero
    spread = f" ± {gain.std(ddof=1):.3f}" if len(gain) > 1 else ""
    return f"{values.mean():.3f} ({gain.mean():+.3f}{spread}, least {gain.min():+.3f})"


def main() -> None:
    """Read the options, run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds levir/, levir_crops/, fotbcd/, fotbcd_instances/")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/few-labels"))
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=PROTOCOLS, help="what is tested on what")
    parser.add_argument("--draws", type=int, default=len(DRAWS), help="draws of each number of crops")
    parser.add_argument("--students", type=int, default=0, help="of these, draws on which students are trained, too")
    parser.add_argument("--rows", nargs="+", choices=(*ROWS, *STUDENTS), help="these rows alone")
    parser.add_argument("--labelled", type=int, nargs="+", default=LABELLED, help="crops; 999: all but those tested on")
    options = parser.parse_args()
    out, path = options.out, options.out / "results.json"
    dataset = read_real_pairs(options.data, crops=out / "pairs")
    fill_stores(dataset, out, students=options.students > 0)
    results = read_json(path, remedy="Delete it") if path.exists() else {}
    known: dict[str, list[int]] = {}
    for case in list_cases(dataset, options.labelled, DRAWS[: options.draws]):
        if case.protocol not in options.protocols:
            continue
        of_case = results.setdefault(case.name, {})
        trained = case.seed in DRAWS[: options.students]
        if "no labels" not in of_case:
            of_case["no labels"] = score_without_labels(case, known)
        for row, recipe in (ROWS | (STUDENTS if trained else {})).items():
            if row not in of_case and (options.rows is None or row in options.rows):
                of_case[row] = measure(case, row, recipe, root=out / "pairs", out=out)
            write_json(path, results)
        shown = ", ".join(f"{row} {value:.3f}" for row, value in results[case.name].items())
        Console().print(f"{case.name}: {shown}", highlight=False, soft_wrap=True)
    Console().print(render(results), highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
