"""Evaluate trained networks and change maps against the truth, and compare methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from semicdvl.api.parts import load_dataset

if TYPE_CHECKING:
    from semicdvl.benchmarking.config import Suite
    from semicdvl.benchmarking.run import BenchmarkResult
    from semicdvl.data.change_dataset import ChangeDataset
    from semicdvl.evaluation.evaluate import MapEvaluation


def evaluate(
    run: str | Path,
    data: str | Path | ChangeDataset,
    *,
    split: Literal["val", "test", "all"] = "test",
    trust: Sequence[str] = (),
) -> dict[str, float]:
    """Score a trained run on the labelled pairs of a data set.

    Args:
        run: a folder that `train` or `import_official` wrote.
        data: folder of a data set (A/, B/, label/), or what `load_dataset` returned.
        split: which pairs: "val" and "test" of the run's own split where it was trained on this data, else of the data
            set's lists; "all": every labelled pair, also those of the training.
        trust: modules whose networks the run may name, see `load_model`.

    Returns:
        Scores of the changed class (`iou`, `f1`, `precision`, `recall`) and of both (`accuracy`, `kappa`, ...); of a
        run with classes also those of semantic change (`semantic_sek`, `semantic_f_scd`, ...), on the pairs with labels
        of both dates, and in `.classes` the counts behind them (`.counts.transitions_KK`, ...). All are fractions from
        0 to 1; one that the labels do not define, such as the IoU where nothing changed, is NaN. `.pair_count` says how
        many pairs were scored, `.trained_count` how many of them the run was trained on.

    Raises:
        CheckpointError: `run` is no run.
        ConfigError: the run names code that is not trusted.
        DataError: no labelled pair is in `split`.

    Examples:
        >>> import semicdvl as cd
        >>> sorted(cd.evaluate(run, patches, split="all"))[:3]
        ['accuracy', 'f1', 'iou']
    """
    from semicdvl.training.evaluate import evaluate_run

    dataset = load_dataset(data) if isinstance(data, str | Path) else data
    return evaluate_run(Path(run), dataset, subset=split, trust=trust)


def evaluate_map(
    result: str | Path,
    truth: str | Path,
    *,
    area: str | Path | None = None,
    layer: str | None = None,
    area_layer: str | None = None,
    sample: int | None = None,
    seed: int = 0,
    label_values: str | Mapping[int, int] | None = None,
    truth_nodata: int | None = None,
) -> MapEvaluation:
    """Compare a change map with the truth: pixels, objects, and area-adjusted accuracy with confidence intervals.

    Args:
        result: folder that `detect_to_folder` wrote; `evaluation.json` and `evaluation.gpkg` are written into it.
        truth: polygons of change, a mask raster, or a sample from `draw_sample` with its column `truth` filled.
        area: polygons of the ground on which the truth is known; None: everywhere.
        layer: layer of the truth's file, where it has several.
        area_layer: layer of the area's file, where it has several.
        sample: number of places for the area-adjusted accuracy; None: the default.
        seed: another seed draws other places.
        label_values: what the values of a mask mean, such as "255=changed,0=unchanged", or 255 -> 1 (changed), 0
            (unchanged) or 255 (not known); None: white, 255 or 1 is changed and black or 0 unchanged.
        truth_nodata: value of a mask where the truth is not known.

    Returns:
        MapEvaluation: `.comparison` (scores by pixel and by object), `.sample` and `.accuracy` (area-adjusted),
        `.notes`, and `.format_rows()`, all of them as rows of a table.

    Raises:
        InputError: a file cannot be used, or is elsewhere on the ground.
        DataError: a sample holds other values than 0 and 1.
        ConfigError: `label_values` cannot be read.
        OutputError: the folder cannot be written.

    Examples:
        >>> import semicdvl as cd
        >>> saved = cd.detect_to_folder(before_tif, after_tif, out, detector=cd.create_detector("cva"), progress=False)
        >>> evaluation = cd.evaluate_map(saved.folder, changes_gpkg)
        >>> (saved.folder / "evaluation.json").is_file()
        True
    """
    from semicdvl.evaluation import evaluate as evaluation

    count = evaluation.DEFAULT_SAMPLE_SIZE if sample is None else sample
    region = None if area is None else Path(area)
    return evaluation.score_map(
        Path(result),
        Path(truth),
        area=region,
        layer=layer,
        area_layer=area_layer,
        sample=count,
        seed=seed,
        label_values=label_values,
        truth_nodata=truth_nodata,
    )


def draw_sample(
    result: str | Path,
    *,
    count: int,
    seed: int = 0,
    area: str | Path | None = None,
    area_layer: str | None = None,
) -> Path:
    """Draw a stratified random sample of places to check by eye, and write it beside a change map.

    Fill the column `truth` (0 or 1) in a GIS; `evaluate_map(result, sample)` then gives the accuracy of the map.

    Args:
        result: folder that `detect_to_folder` wrote.
        count: number of places.
        seed: another seed draws other places.
        area: polygons of the ground to draw from; None: everywhere.
        area_layer: layer of the area's file, where it has several.

    Returns:
        The file, `result/sample.gpkg`.

    Raises:
        InputError: `result` is no result.
        ConfigError: there is a sample already, which may hold answers.
        OutputError: the folder cannot be written.

    Examples:
        >>> import semicdvl as cd
        >>> saved = cd.detect_to_folder(before_tif, after_tif, out, detector=cd.create_detector("cva"), progress=False)
        >>> cd.draw_sample(saved.folder, count=20).name
        'sample.gpkg'
    """
    from semicdvl.evaluation import evaluate as evaluation

    region = None if area is None else Path(area)
    return evaluation.draw_reference_sample(Path(result), count=count, seed=seed, area=region, area_layer=area_layer)


def benchmark(
    suite: str | Path | Suite,
    out: str | Path | None = None,
    *,
    jobs: int = 1,
    data: str | Path | None = None,
    retry: bool = False,
    devices: Sequence[str] | None = None,
) -> BenchmarkResult:
    """Compare methods x label fractions x seeds: one table with spreads, paired tests, and a page with plots.

    Started again, it makes only what is missing. A run that fails becomes a line of the table; the others go on.

    Args:
        suite: a TOML file such as `recipes/suites/small.toml`, or what `load_suite` returned.
        out: folder for everything; None: `runs/NAME` with the suite's name.
        jobs: runs at a time, each in a process of its own; 0: one after the other in this process.
        data: where the real pairs are, in place of what the suite says.
        retry: make runs again that failed or diverged.
        devices: GPUs, by number, that runs are distributed to; None: all.

    Returns:
        BenchmarkResult: `.outcomes`, one for each run, `.failed_count`, and the files `.table`, `.csv` and `.report`.

    Raises:
        InputError, ConfigError: the suite, or what it names, cannot be used.
        OutputError: `out` cannot be written.

    Examples:
        >>> import semicdvl as cd
        >>> result = cd.benchmark("recipes/suites/small.toml", jobs=0)                  # doctest: +SKIP
        >>> print(result.table.read_text())                                             # doctest: +SKIP
    """
    from semicdvl.benchmarking.config import load_suite
    from semicdvl.benchmarking.run import run_benchmark

    checked = load_suite(Path(suite)) if isinstance(suite, str | Path) else suite
    checked = checked.replace_data_root(None if data is None else Path(data))
    folder = Path("runs") / checked.name if out is None else Path(out)
    return run_benchmark(checked, folder, jobs=jobs, retry=retry, devices=devices)
