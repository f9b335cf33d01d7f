"""How much a learned check of single change events can gain on images from elsewhere: a bound, before any is built.

    python benchmarks/event_check.py ../shared/data -o runs/event-check

Candidates are the events of the default rule before its comparison of the features, and those that looser thresholds
add (`event_measures.LOOSER`). Each has a row of measures (scores at both dates inside and around, features, colour,
outline, shape) and its true share of change. A regularised classifier that was trained on all other sources decides
which candidates are kept; the score is IoU^c over the pooled pixels of the source that was left out. Beside it stand
the rule itself, classifiers that have seen the other pairs of the same source alone, and the choice with knowledge of
the truth. A careful choice drops what the rule keeps below a probability of 0.15 alone, and adds from 0.6 on.

Measures are kept in the output folder, so that a second call takes seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from comparison_cache import list_pairs, load_answers
from event_measures import LOOSER, MEASURES, find_candidates
from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.features import AERIAL_ENCODER, build_feature_extractor
from semicdvl.vlms.aerial.build import build_aerial

CITY_SEEDS = tuple(range(30, 38))
SOURCES = ("levir", "fotbcd", "city")


def load_table(root: Path, out: Path) -> Table:
    """Return the candidates of all pairs, from the files of an earlier call where there are some."""
    vlm, extractor = build_aerial(), build_feature_extractor(AERIAL_ENCODER)
    names, found = [], []
    for pair in list_pairs(root, out, seeds=CITY_SEEDS):
        path = out / "candidates" / vlm.identity / f"{pair.name}.npz"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            one = find_candidates(load_answers(pair, vlm, extractor, out))
            np.savez(path, **vars(one))
            print(f"{pair.name}: {len(one.level_N)} candidates", flush=True)
        with np.load(path) as stored:
            found.append({name: stored[name] for name in stored.files})
        names.append(pair.name)
    return Table(
        np.concatenate([one["measures_NM"] for one in found]),
        np.concatenate([one["level_N"] for one in found]),
        np.concatenate([one["counts_N2"] for one in found]),
        np.repeat(np.arange(len(found)), [len(one["level_N"]) for one in found]),
        tuple(names),
        np.array([name.split("-")[0].split("_")[0] for name in names]),
        np.array([int(one["changed_px"]) for one in found]),
        np.array([one["rule"] for one in found]),
    )


@dataclass(frozen=True)
class Table:
    """The candidates of all pairs, one below the other, and what is known of each pair."""

    measures_NM: np.ndarray
    level_N: np.ndarray
    counts_N2: np.ndarray
    pair_N: np.ndarray
    name_P: tuple[str, ...]
    source_P: np.ndarray
    changed_P: np.ndarray
    rule_P2: np.ndarray

    @property
    def share_N(self) -> np.ndarray:
        """Share of each candidate that changed."""
        return self.counts_N2[:, 0] / np.maximum(self.counts_N2.sum(axis=1), 1)

    @property
    def rule_N(self) -> np.ndarray:
        """Tell which candidates the default rule keeps."""
        distance_N, ground_N = (self.measures_NM[:, MEASURES.index(f"distance{of}")] for of in ("", " of ground"))
        rule = CEGSettings(level="residual")
        wanted_N = ground_N + rule.residual_distance * (1 - ground_N)
        return (self.level_N == 0) & (distance_N >= np.minimum(rule.residual_distance_most, wanted_N))

    def score(self, kept_N: np.ndarray, pairs_P: np.ndarray) -> float:
        """Return the IoU over the pooled pixels of some pairs, if some candidates are kept."""
        right, wrong = self.counts_N2[kept_N & pairs_P[self.pair_N]].sum(axis=0)
        return float(right / (self.changed_P[pairs_P].sum() + wrong))

    def score_rule(self, pairs_P: np.ndarray) -> float:
        """Return the IoU of the default rule."""
        right, wrong = self.rule_P2[pairs_P].sum(axis=0)
        return float(right / (self.changed_P[pairs_P].sum() + wrong))


# ------------------------------------------------------------------------------------------------ choices
def know_truth(table: Table, pairs_P: np.ndarray, levels: int) -> float:
    """Return the highest IoU: that of the candidates whose share of change is over IoU / (1 + IoU)."""
    best = 0.5
    for _ in range(20):
        best = table.score((table.share_N > best / (1 + best)) & (table.level_N < levels), pairs_P)
    return best


@dataclass(frozen=True)
class Learner:
    """A classifier of candidates.

    Attributes:
        build: makes it.
        levels: how many levels of candidates it sees.
        measures: which measures it sees.
        least: probability from which a candidate is kept; None: the best on the training pairs.
        careful: below the first probability what the rule keeps is dropped, from the second on what it drops is kept.
        power: candidates count by their area to this power.
    """

    build: Callable[[], ClassifierMixin]
    levels: int = 1
    measures: tuple[str, ...] = MEASURES
    least: float | None = 0.4
    careful: tuple[float, float] | None = None
    power: float = 0.5

    def choose(self, table: Table, train_P: np.ndarray) -> np.ndarray:
        """Return which candidates are kept by the classifier that was trained on some pairs."""
        scores_N = self.fit(table, train_P)(table)
        if self.careful is not None:
            return np.where(table.rule_N, scores_N >= self.careful[0], scores_N >= self.careful[1])
        if self.least is not None:
            return scores_N >= self.least
        groups = [train_P & (table.source_P == source) for source in np.unique(table.source_P[train_P])]
        tried = np.arange(0.2, 0.75, 0.05)
        means = [np.mean([table.score(scores_N >= least, group) for group in groups]) for least in tried]
        return scores_N >= tried[int(np.argmax(means))]

    def fit(self, table: Table, train_P: np.ndarray) -> Callable[[Table], np.ndarray]:
        """Return what gives every candidate a probability, 0 at levels that it does not see."""
        cols = [MEASURES.index(name) for name in self.measures]
        mine_N = train_P[table.pair_N] & (table.level_N < self.levels)
        scaler = StandardScaler().fit(table.measures_NM[mine_N][:, cols])

        def scale(measures_NM: np.ndarray) -> np.ndarray:
            return np.clip(scaler.transform(measures_NM[:, cols]), -4, 4)

        weight_N = table.counts_N2.sum(axis=1) ** self.power
        for source in np.unique(table.source_P):
            of_N = mine_N & (table.source_P[table.pair_N] == source)
            weight_N[of_N] *= 200 / max(weight_N[of_N].sum(), 1e-9)
        inputs, share_N, weight_N = scale(table.measures_NM[mine_N]), table.share_N[mine_N], weight_N[mine_N]
        label = np.repeat([1, 0], len(inputs))
        weight = np.concatenate([weight_N * share_N, weight_N * (1 - share_N)]) + 1e-9
        fitted = self.build().fit(np.concatenate([inputs, inputs]), label, sample_weight=weight)
        return lambda asked: np.where(
            asked.level_N < self.levels, fitted.predict_proba(scale(asked.measures_NM))[:, 1], 0
        )


def leave_sources_out(table: Table, learner: Learner) -> list[float]:
    """Return the IoU on every source, of a classifier that has seen the others."""
    of_source = [table.source_P == source for source in SOURCES]
    return [table.score(learner.choose(table, ~left), left) for left in of_source]


def leave_pairs_out(table: Table, learner: Learner) -> list[float]:
    """Return the IoU on every source, of classifiers that have seen its other pairs and nothing else."""
    scores = []
    for source in SOURCES:
        of_source = table.source_P == source
        kept_N = np.zeros(len(table.pair_N), bool)
        for at in np.flatnonzero(of_source):
            one = np.arange(len(of_source)) == at
            kept_N |= learner.choose(table, of_source & ~one) & (table.pair_N == at)
        scores.append(table.score(kept_N, of_source))
    return scores


def logistic(strength: float) -> Callable[[], ClassifierMixin]:
    """Return what builds a logistic regression; a smaller strength is regularised more."""
    return lambda: LogisticRegression(C=strength, max_iter=1000)


def boosted(trees: int = 60) -> Callable[[], ClassifierMixin]:
    """Return what builds gradient boosting of small trees."""
    return lambda: GradientBoostingClassifier(
        n_estimators=trees, max_depth=2, learning_rate=0.1, subsample=0.7, min_samples_leaf=10, random_state=0
    )


FEW = ("distance above ground", "distance", "score own", "score other", "log area", "correlation")
LEARNERS = {
    "logistic, C 0.1": (logistic(0.1), {}),
    "logistic, C 0.1, careful": (logistic(0.1), {"careful": (0.15, 0.6)}),
    "logistic, C 0.1, six measures": (logistic(0.1), {"measures": FEW}),
    "logistic, C 0.1, six measures, careful": (logistic(0.1), {"measures": FEW, "careful": (0.15, 0.6)}),
    "boosted trees": (boosted(), {}),
    "boosted trees, careful": (boosted(), {"careful": (0.15, 0.6)}),
}


def render(table: Table) -> str:
    """Return the table of all choices."""
    of_source = [table.source_P == source for source in SOURCES]
    rows = {"default rule": [table.score_rule(mine) for mine in of_source]}
    for levels in range(1, len(LOOSER) + 1):
        name = f"{levels} level{'s' * (levels > 1)}"
        rows[f"truth known, {name}"] = [know_truth(table, mine, levels) for mine in of_source]
    for levels in (1, len(LOOSER)):
        for name, (build, options) in LEARNERS.items():
            learner = Learner(build, levels=levels, **options)
            name = f"{name}, {levels} level{'s' * (levels > 1)}"
            rows[f"{name}: other sources"] = leave_sources_out(table, learner)
            rows[f"{name}: own source"] = leave_pairs_out(table, learner)
    lines = ["| choice | " + " | ".join(SOURCES) + " | least gain |", "|---" * (len(SOURCES) + 2) + "|"]
    first = np.array(rows["default rule"])
    for name, scores in rows.items():
        cells = " | ".join(f"{score:.3f}" for score in scores)
        lines.append(f"| {name} | {cells} | {np.min(np.array(scores) - first):+.3f} |")
    return "\n".join(lines)


def main() -> None:
    """Read the options, measure what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds levir/, fotbcd/, ... each with A/ B/ label/")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/event-check"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(render(load_table(options.data, options.out)))


if __name__ == "__main__":
    main()
