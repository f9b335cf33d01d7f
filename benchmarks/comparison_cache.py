"""What the studies of the comparison rules share: pairs, the VLM's answers about them, and its features, kept in files.

`load_answers` asks the embedded VLM once for each pair and keeps scores and features by the hash of its weights: new
weights ask anew, the same weights never again. `SOURCES` says which folders show one source, so that a source is never
both chosen on and tested on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from classic import Case
from semicdvl.ceg.features import FeatureExtractor, scale_extractor
from semicdvl.ceg.instances.feature_similarity import PairFeatures
from semicdvl.ceg.prompts import PROMPT_SETS
from semicdvl.data.labels.files import read_mask
from semicdvl.data.readers import folder
from semicdvl.raster.io.open_pair import open_pair
from semicdvl.synthetic.config import CitySpec
from semicdvl.synthetic.generate import generate_city
from semicdvl.types import VLM, ReadingSettings, Segments

SOURCES = {"fotbcd": "fotbcd", "fotbcd_instances": "fotbcd", "levir_crops": "levir", "levir": "levir", "xbd": "xbd"}
"""Folder -> source. Two folders of one source are never on both sides of a choice."""
FROZEN = "xbd"
"""The source that no choice has seen: it is scored once, at the end. Of the sources whose labels show change of
buildings it is the only one that no earlier choice of the comparison had seen either."""
GSD_M = {"levir": 0.5, "levir_crops": 0.5, "fotbcd": 0.2, "fotbcd_instances": 0.2, "xbd": 0.5, "city": 0.5}
CITY_SEEDS = (30, 31, 32)
"""Of synthetic cities on which values are chosen; no table of results shows these."""
PROMPTS = PROMPT_SETS["buildings"]


@dataclass(frozen=True)
class PairCase:
    """A labelled pair and its source."""

    source: str
    case: Case

    @property
    def name(self) -> str:
        """Folder and name of the pair."""
        return f"{self.case.data}-{self.case.name}"

    @property
    def gsd_m(self) -> float:
        """Metres per pixel."""
        return GSD_M[self.case.data]


@dataclass(frozen=True)
class AnsweredPair:
    """A pair with all that a rule needs: its images, the VLM's answers and the features of both dates."""

    pair: PairCase
    images_HWC: tuple[np.ndarray, np.ndarray]
    answers: tuple[Segments, Segments]
    features: PairFeatures
    truth_HW: np.ndarray


def list_pairs(root: Path, out: Path, *, seeds: tuple[int, ...] = CITY_SEEDS, frozen: bool = False) -> list[PairCase]:
    """List the labelled pairs: the frozen source alone, or all others and the cities (made where missing)."""
    found = []
    for name in [name for name, source in SOURCES.items() if (source == FROZEN) == frozen]:
        for pair in folder.read_folder(root / name).pairs:
            assert pair.label is not None, "these pairs all have labels"
            found.append(PairCase(SOURCES[name], Case(name, pair.name, pair.before, pair.after, pair.label)))
    for seed in () if frozen else seeds:
        place = out / "city"
        if not (place / "label" / f"{seed}.png").exists():
            city = generate_city(CitySpec(seed=seed))
            for side, image in (("A", city.t1_HWC), ("B", city.t2_HWC), ("label", city.change_HW * 255)):
                (place / side).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(place / side / f"{seed}.png")
        files = [place / side / f"{seed}.png" for side in ("A", "B", "label")]
        found.append(PairCase("city", Case("city", str(seed), files[0], files[1], files[2])))
    return found


def load_answers(
    pair: PairCase, vlm: VLM, extractor: FeatureExtractor, out: Path, *, normalise: str = "none"
) -> AnsweredPair:
    """Return a pair with the VLM's answers about it, from the file of an earlier call where there is one."""
    with open_pair(pair.case.before, pair.case.after, ReadingSettings(normalise=normalise)) as opened:
        window = opened.read(0, 0, *opened.shape_hw)
    path = out / "answers" / vlm.identity / normalise / f"{pair.name}.npz"
    if not path.exists():
        scaled = scale_extractor(extractor, pair.gsd_m)
        dates = window.t1_HWC, window.t2_HWC
        scores = [vlm.segment(date_HWC, PROMPTS.words, gsd_m=pair.gsd_m).scores_CHW for date_HWC in dates]
        features = [scaled.extract_features(date_HWC) for date_HWC in dates]
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez(part, scores=np.float16(scores), stage4=np.float16(features))
        part.rename(path)
    with np.load(path) as stored:
        scores_2CHW = stored["scores"][:, : len(PROMPTS.words)].astype(np.float32)
        features_2DHW = stored["stage4"].astype(np.float32)
    answers = Segments(scores_2CHW[0], PROMPTS.words), Segments(scores_2CHW[1], PROMPTS.words)
    truth_HW = read_mask(pair.case.label) == 1
    return AnsweredPair(pair, (window.t1_HWC, window.t2_HWC), answers, PairFeatures(*features_2DHW), truth_HW)
