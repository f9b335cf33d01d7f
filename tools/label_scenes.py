"""Label scenes by choosing numbered segments: how the set in data_sets/aerial_labels was made.

    python tools/label_scenes.py draw                 list the scenes, drawn at random per class, before any labelling
    python tools/label_scenes.py prepare              cut all scenes into segments (kept beside the answers)
    python tools/label_scenes.py sheets a b c d       a sheet per scene: plain, and numbered with the proposal as a tint
    python tools/label_scenes.py apply FILE           proposal + corrections ("buildings12: b 3 5-8; p 41") -> labels;
                                                      shapes in pixels of the left picture of a sheet (768 wide)
    python tools/label_scenes.py review a b c d e f   outlines of the labels on the pictures, six scenes a sheet
    python tools/label_scenes.py compare              agreement of the second labelling with the first
    python tools/label_scenes.py map                  agreement of the tiles' buildings with OpenStreetMap

A proposal is what the embedded VLM says of each segment; once twelve scenes are labelled, trees fitted on all segments
labelled so far propose better. `--second` draws and keeps the second, blind labelling: its proposals are the VLM's
alone, so that no first answer shows through. Runs offline on a CPU; needs the extra `dev`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from label_answers import (
    CLASSES,
    UNKNOWN,
    Answer,
    compute_kappa,
    correct_answer,
    count_agreement,
    paint_answer,
    read_answer,
    write_answer,
)  # fmt: skip
from label_sheets import PANEL_PX, draw_numbered, draw_plain, draw_review, stack_sheet

SEED = 16
SCENES_OF_CLASS = {
    "buildings": 14, "denseresidential": 12, "mediumresidential": 12, "mobilehomepark": 8, "sparseresidential": 10,
    "storagetanks": 10, "parkinglot": 8, "harbor": 6, "airplane": 8, "intersection": 8, "overpass": 5, "tenniscourt": 8,
    "freeway": 5, "runway": 4, "baseballdiamond": 5, "river": 4, "beach": 3, "golfcourse": 4, "chaparral": 2,
    "agricultural": 3, "forest": 2,
}  # fmt: skip
MORE_SCENES_OF_CLASS = {"buildings": 4, "denseresidential": 3, "mediumresidential": 3, "sparseresidential": 2}
"""Drawn in the same way after the first list was done, from the scenes that were not in it."""
TILES_OF_BANEPA = 20
"""Of the first half of the tiles by name; the second half stays out of every training."""
CLASSES_WITH_BUILDINGS = (
    "buildings", "denseresidential", "mediumresidential", "mobilehomepark", "sparseresidential", "storagetanks",
    "intersection",
)  # fmt: skip
KINDS = (*SCENES_OF_CLASS, "banepa")
GSD_M = {"ucmerced": 0.3, "banepa": 0.13}
LEAST_SCENES_TO_LEARN = 12


@dataclass(frozen=True)
class Folders:
    """Name the places: images, the label set, scratch for what can be computed again."""

    images: Path
    labels: Path
    scratch: Path
    second: bool

    @property
    def answers(self) -> Path:
        """Answers of the first or of the second labelling."""
        return self.labels / ("answers_second" if self.second else "answers")

    def image_path(self, name: str) -> Path:
        """Return the picture of a scene."""
        if name.startswith("OAM"):
            return self.images / "banepa" / "image" / f"{name}.jpg"
        return self.images / "ucmerced" / name.rstrip("0123456789") / f"{name}.jpg"

    def read_image(self, name: str) -> NDArray[np.uint8]:
        """Return the picture of a scene as RGB."""
        image = cv2.imread(str(self.image_path(name)), cv2.IMREAD_COLOR)
        if image is None:
            raise FileNotFoundError(self.image_path(name))
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def read_segments(self, name: str) -> NDArray[np.uint8]:
        """Return the segment numbers of a scene."""
        return cv2.imread(str(self.labels / "segments" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)


def source_of(name: str) -> str:
    """Return the source of a scene."""
    return "banepa" if name.startswith("OAM") else "ucmerced"


def kind_of(name: str) -> NDArray[np.float32]:
    """Return the scene's class as a row of zeros with a one."""
    kind = "banepa" if name.startswith("OAM") else name.rstrip("0123456789")
    return np.array([kind == other for other in KINDS], np.float32)


def list_scenes(folders: Folders) -> list[str]:
    """Return the scenes of scenes.txt."""
    return (folders.labels / "scenes.txt").read_text(encoding="utf-8").split()


def draw_scenes(folders: Folders) -> None:
    """Write scenes.txt: scenes of each class at random, and tiles of the first half of banepa."""
    rng = np.random.default_rng(SEED)
    names: list[str] = []
    for kind, count in SCENES_OF_CLASS.items():
        stems = sorted(path.stem for path in (folders.images / "ucmerced" / kind).glob("*.jpg"))
        names += sorted(rng.choice(stems, count, replace=False).tolist())
    tiles = sorted(path.stem for path in (folders.images / "banepa" / "image").glob("*.jpg"))
    tiles = tiles[: len(tiles) // 2]
    names += sorted(rng.choice(tiles, TILES_OF_BANEPA, replace=False).tolist())
    (folders.labels / "scenes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    print(f"{len(names)} scenes")


def draw_more(folders: Folders) -> None:
    """Append further scenes of some classes to scenes.txt."""
    rng = np.random.default_rng(SEED + 2)
    names = list_scenes(folders)
    for kind, count in MORE_SCENES_OF_CLASS.items():
        stems = sorted(path.stem for path in (folders.images / "ucmerced" / kind).glob("*.jpg"))
        names += sorted(rng.choice([stem for stem in stems if stem not in names], count, replace=False).tolist())
    (folders.labels / "scenes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    print(" ".join(names[-sum(MORE_SCENES_OF_CLASS.values()) :]))


def prepare_scenes(folders: Folders) -> None:
    """Cut every scene into segments, and keep what the proposals need."""
    from label_segments import cut_segments, describe_segments, propose_from_scores, read_scene  # PyTorch: slow to load
    from semicdvl.vlms.aerial.build import build_aerial

    vlm = build_aerial(views=4)
    for place in (folders.labels / "segments", folders.scratch):
        place.mkdir(parents=True, exist_ok=True)
    for name in list_scenes(folders):
        kept, path = folders.scratch / f"{name}.npz", folders.labels / "segments" / f"{name}.png"
        if kept.is_file() and path.is_file():
            continue
        image_HWC = folders.read_image(name)
        reading = read_scene(vlm, image_HWC, gsd_m=GSD_M[source_of(name)])
        if not path.is_file():
            cv2.imwrite(str(path), cut_segments(image_HWC, reading.scores_CHW), [cv2.IMWRITE_PNG_COMPRESSION, 9])
        segments_HW = folders.read_segments(name)
        rows = describe_segments(image_HWC, segments_HW, reading, kind_of(name))
        first = propose_from_scores(segments_HW, reading.scores_CHW)
        np.savez(kept, rows=rows, first=np.array([first.label_of[n] for n in range(len(rows))], np.uint8))
        print(f"{name}: {len(rows)} segments")


def write_proposals(folders: Folders) -> None:
    """Renew the proposals of all scenes without an answer: by the VLM, or by what was labelled so far."""
    from label_segments import fit_proposer

    proposals = folders.scratch / ("proposals_second" if folders.second else "proposals")
    done = {} if folders.second else {p.stem: read_answer(p) for p in sorted(folders.answers.glob("*.txt"))}
    kept = {n: np.load(p) for n in list_scenes(folders) if (p := folders.scratch / f"{n}.npz").is_file()}
    trees = None
    if len(done) >= LEAST_SCENES_TO_LEARN:
        labels = [find_majority(answer, folders.read_segments(name)) for name, answer in done.items()]
        rows = np.concatenate([kept[name]["rows"] for name in done])
        trees = fit_proposer(rows, np.concatenate(labels))
    for name, known in kept.items():
        if name in done:
            continue
        labels_N = known["first"] if trees is None else trees.predict(known["rows"])
        write_answer(proposals / f"{name}.txt", Answer(dict(enumerate(labels_N.tolist()))))


def find_majority(answer: Answer, segments_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the commonest class of each segment, with the shapes painted over it; UNKNOWN is one of them."""
    pairs = segments_HW.astype(np.int64) * 256 + paint_answer(answer, segments_HW)
    count = int(segments_HW.max()) + 1
    return np.bincount(pairs.ravel(), minlength=256 * count).reshape(count, 256).argmax(1).astype(np.uint8)


def draw_second(folders: Folders) -> None:
    """Write scenes_second.txt: a tenth of the labelled scenes, two thirds of them of classes with buildings."""
    rng = np.random.default_rng(SEED + 1)
    names = sorted(path.stem for path in (folders.labels / "answers").glob("*.txt"))
    built = [name for name in names if name.startswith(CLASSES_WITH_BUILDINGS)]
    tiles = [name for name in names if name.startswith("OAM")]
    others = [name for name in names if name not in {*built, *tiles}]
    chosen = [*rng.choice(built, 9, replace=False), *rng.choice(others, 5, replace=False)]
    chosen += [*rng.choice(tiles, 2, replace=False)]
    (folders.labels / "scenes_second.txt").write_text("\n".join(chosen) + "\n", encoding="utf-8")
    print(" ".join(chosen))


def read_proposal(folders: Folders, name: str) -> Answer:
    """Return the answer so far, else the proposal."""
    path = folders.answers / f"{name}.txt"
    if not path.is_file():
        path = folders.scratch / ("proposals_second" if folders.second else "proposals") / f"{name}.txt"
    return read_answer(path)


def write_sheets(folders: Folders, names: list[str]) -> None:
    """Draw a sheet per scene, sheet_<scene>.png: plain with a ruler, and numbered with the proposal as a tint."""
    for name in names:
        image_HWC, segments_HW = folders.read_image(name), folders.read_segments(name)
        labels_HW = paint_answer(read_proposal(folders, name), segments_HW)
        panels = [draw_plain(image_HWC, name), draw_numbered(image_HWC, segments_HW, labels_HW)]
        cv2.imwrite(str(folders.scratch / f"sheet_{name}.png"), stack_sheet([panels])[..., ::-1])


def apply_corrections(folders: Folders, path: Path) -> None:
    """Write answers and label images for every line "scene: corrections" of a file."""
    for line in filter(None, (line.strip() for line in path.read_text(encoding="utf-8").splitlines())):
        name, _, text = line.partition(":")
        try:
            scale = folders.read_segments(name).shape[0] / PANEL_PX
            answer = correct_answer(read_proposal(folders, name), text, scale=scale)
        except (ValueError, KeyError) as error:
            print(f"{name}: {error}")
            continue
        write_answer(folders.answers / f"{name}.txt", answer)
    if not folders.second:
        paint_all(folders)


def paint_all(folders: Folders) -> None:
    """Write the label image of every answer."""
    for path in sorted(folders.answers.glob("*.txt")):
        target = folders.labels / "labels" / source_of(path.stem) / f"{path.stem}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        labels_HW = paint_answer(read_answer(path), folders.read_segments(path.stem))
        cv2.imwrite(str(target), labels_HW, [cv2.IMWRITE_PNG_COMPRESSION, 9])


def write_review(folders: Folders, names: list[str]) -> None:
    """Draw the outlines of the labels on the pictures, six scenes a sheet: review_0.png, ..."""
    for index in range(0, len(names), 6):
        panels = []
        for name in names[index : index + 6]:
            image_HWC, segments_HW = folders.read_image(name), folders.read_segments(name)
            panels.append(draw_review(image_HWC, paint_answer(read_proposal(folders, name), segments_HW), name))
        rows = [panels[i : i + 3] for i in range(0, len(panels), 3)]
        cv2.imwrite(str(folders.scratch / f"review_{index // 6}.png"), stack_sheet(rows)[..., ::-1])


def compare_labellings(folders: Folders) -> None:
    """Print how the second labelling agrees with the first: IoU per class, kappa."""
    totals = {source: np.zeros((len(CLASSES), len(CLASSES)), np.int64) for source in GSD_M}
    for path in sorted((folders.labels / "answers_second").glob("*.txt")):
        segments_HW = folders.read_segments(path.stem)
        first, second = (read_answer(folders.labels / part / path.name) for part in ("answers", "answers_second"))
        matrix = count_agreement(paint_answer(first, segments_HW), paint_answer(second, segments_HW))
        totals[source_of(path.stem)] += matrix
        print(f"{path.stem}: {np.trace(matrix) / matrix.sum():.3f}")
    for source, matrix in {**totals, "both": sum(totals.values(), np.zeros_like(totals["banepa"]))}.items():
        both, union = np.diag(matrix), matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
        ious = " ".join(f"{name} {both[i] / union[i]:.3f}" for i, name in enumerate(CLASSES) if union[i])
        print(f"{source}: same {both.sum() / matrix.sum():.3f}, kappa {compute_kappa(matrix):.3f}, IoU {ious}")


def measure_against_map(folders: Folders) -> None:
    """Print how the buildings of banepa agree with OpenStreetMap's, which no labelling looked at."""
    total = np.zeros(3, np.int64)
    for path in sorted((folders.labels / "labels" / "banepa").glob("*.png")):
        labels_HW = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        mapped_HW = cv2.imread(str(folders.images / "banepa" / "buildings" / path.name), cv2.IMREAD_GRAYSCALE) > 127
        built_HW, known_HW = labels_HW == CLASSES.index("building"), labels_HW != UNKNOWN
        pairs = (built_HW & mapped_HW, built_HW & ~mapped_HW, ~built_HW & mapped_HW)
        counts = np.array([(pair_HW & known_HW).sum() for pair_HW in pairs])
        total += counts
        print(f"{path.stem}: IoU {counts[0] / counts.sum():.3f}")
    tp, fp, fn = total.tolist()
    print(f"all: IoU {tp / total.sum():.3f}, precision {tp / (tp + fp):.3f}, recall {tp / (tp + fn):.3f}")


def count_classes(folders: Folders) -> None:
    """Print the share of each class per source."""
    for source in GSD_M:
        paths = sorted((folders.labels / "labels" / source).glob("*.png"))
        counts = sum(np.bincount(cv2.imread(str(p), cv2.IMREAD_GRAYSCALE).ravel(), minlength=256) for p in paths)
        if paths:
            shares = {name: counts[i] / counts.sum() for i, name in enumerate(CLASSES)}
            shares["unknown"] = counts[UNKNOWN] / counts.sum()
            print(source, len(paths), " ".join(f"{name} {share:.1%}" for name, share in shares.items()))


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = (
        "draw", "draw_more", "draw_second", "prepare", "propose", "sheets", "apply", "review", "compare", "map",
        "count",
    )  # fmt: skip
    parser.add_argument("command", choices=commands)
    parser.add_argument("names", nargs="*", help="scenes, or the file of corrections")
    parser.add_argument("--images", type=Path, default=Path("../shared/data"), help="folder with ucmerced/ and banepa/")
    parser.add_argument("--labels", type=Path, default=Path("data_sets/aerial_labels"), help="the label set")
    parser.add_argument("--scratch", type=Path, default=Path("work-labels"), help="sheets and what can be made again")
    parser.add_argument("--second", action="store_true", help="the second, blind labelling")
    args = parser.parse_intermixed_args()
    folders = Folders(args.images, args.labels, args.scratch, args.second)
    simple = {"draw": draw_scenes, "draw_more": draw_more, "draw_second": draw_second,
              "prepare": prepare_scenes, "propose": write_proposals,
              "compare": compare_labellings, "map": measure_against_map, "count": count_classes}  # fmt: skip
    if args.command in simple:
        simple[args.command](folders)
    elif args.command == "apply":
        apply_corrections(folders, Path(args.names[0]))
    else:
        {"sheets": write_sheets, "review": write_review}[args.command](folders, args.names)


if __name__ == "__main__":
    main()
