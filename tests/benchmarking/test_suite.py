"""A benchmark from start to end, at a size of seconds: resumed, complete, and honest about what failed."""

import csv
import json
import shutil
import time
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from tests.support.dataset_files import folder_of_pairs
from tests.support.tiny_suite import RECIPES, TINY, write_suite
from typer.testing import CliRunner

from semicdvl.benchmarking.config import FolderEntry, Suite, load_suite
from semicdvl.benchmarking.data import UNLABELLED_COPY_SUFFIX, prepare_data
from semicdvl.benchmarking.jobs import check_suite, plan_jobs
from semicdvl.benchmarking.processes import choose_least_busy
from semicdvl.benchmarking.run import BenchmarkResult, run_benchmark
from semicdvl.cli import app
from semicdvl.data.split_file import read_split
from semicdvl.errors import ConfigError, DataError, InputError, OutputError


def run(suite: Suite, out: Path, **options: object) -> tuple[BenchmarkResult, str]:
    """Run in this process; return the result and what was said."""
    said = StringIO()
    return run_benchmark(suite, out, jobs=0, console=Console(file=said, width=200), **options), said.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Suite, Path, BenchmarkResult]:
    folder = tmp_path_factory.mktemp("suite")
    suite = load_suite(write_suite(folder, TINY))
    result, _ = run(suite, folder / "out")
    return suite, folder / "out", result


# ------------------------------------------------------------------------------------------------ end to end
def test_every_combination_is_run_once_and_told_of(finished: tuple[Suite, Path, BenchmarkResult]) -> None:
    _, out, result = finished
    assert result.failed_count == 0
    places = [(one["method"], one["labelled"], one["seed"]) for one in result.outcomes]
    assert places == [("Sup-only", 0.5, 1), ("Sup-only", 1.0, 1), ("SemiCD-VL", 1.0, 1)]
    with (out / "results.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 3
    for row, one in zip(rows, result.outcomes, strict=True):
        assert float(row["iou_val_best"]) == pytest.approx(one["test"]["iou"], abs=1e-5)
        assert float(row["seconds"]) > 0 and float(row["peak_mib"]) > 100
        assert (int(row["labelled_pairs"]), int(row["test_pairs"])) == ((9 if row["labelled"] == "1.0" else 4), 9)
    table = result.table.read_text(encoding="utf-8")
    assert "| SemiCD-VL | 100 % |" in table and "SemiCD-VL - Sup-only" in table
    assert all(path.stat().st_size > 5000 for path in result.plots) and len(result.plots) == 2
    assert "<svg" in result.report.read_text(encoding="utf-8")


def test_a_method_that_a_vlm_teaches_runs_without_any_label(tmp_path: Path) -> None:
    """Its row has 0 %, and the same method with labels is compared with runs of its own share alone."""
    text = TINY.replace("labelled = [0.5, 1.0]", "labelled = [0.5]").replace("labelled = [1.0]", "labelled = [0.0]")
    text = text.replace("[methods.set.data]", "[methods.set.method]\ndual_head = false\n\n[methods.set.data]")
    result, _ = run(load_suite(write_suite(tmp_path, text)), tmp_path / "out")
    assert result.failed_count == 0
    trained = {one["method"]: (one["labelled"], one["pairs"]["labelled"]) for one in result.outcomes}
    assert trained == {"SemiCD-VL": (0.0, 0), "Sup-only": (0.5, 4)}
    assert "| SemiCD-VL | 0 % |" in result.table.read_text(encoding="utf-8")
    assert "SemiCD-VL (no labels)" in (tmp_path / "out" / "plot.svg").read_text(encoding="utf-8")


def test_scores_are_those_of_the_runs(finished: tuple[Suite, Path, BenchmarkResult]) -> None:
    """The selected step's scores are the run's own record; a run whose best step is its last has both alike."""
    for one in finished[2].outcomes:
        record = json.loads((Path(one["run"]) / "run.json").read_text(encoding="utf-8"))
        assert one["test"]["iou"] == record["test"]["iou"]
        if one["best_step"] == 2:
            assert one["test_last"] == pytest.approx(one["test"], abs=1e-6)


def test_what_has_ended_is_not_made_again(finished: tuple[Suite, Path, BenchmarkResult]) -> None:
    suite, out, before = finished
    times = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*") if path.is_file()}
    after, said = run(suite, out)
    assert "3 runs, 3 of them done already" in said
    assert after.outcomes == before.outcomes
    assert times == {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*") if path.is_file()}


def test_a_killed_run_is_gone_on_with(finished: tuple[Suite, Path, BenchmarkResult]) -> None:
    suite, out, before = finished
    lost = next((out / "jobs").glob("city-sup-only-0.5-s1-*.result.json"))
    record = out / "runs" / lost.name.removesuffix(".result.json") / "run.json"
    lost.unlink()
    content = json.loads(record.read_text(encoding="utf-8"))
    record.write_text(json.dumps(content | {"status": "started"}), encoding="utf-8")
    after, said = run(suite, out)
    assert "3 runs, 2 of them done already" in said
    assert [one["test"] for one in after.outcomes] == [one["test"] for one in before.outcomes]


def test_a_failed_run_becomes_a_row_and_the_suite_goes_on(tmp_path: Path) -> None:
    text = TINY.replace("labelled = [0.5, 1.0]", "labelled = [0.5]")
    text = text.replace("[methods.set.data]\ncrop_px = 64", "[methods.set.method]\nlambda_vl = 1e39")
    result, said = run(load_suite(write_suite(tmp_path, text)), tmp_path / "out")
    ended = {one["method"]: one["status"] for one in result.outcomes}
    assert ended == {"Sup-only": "finished", "SemiCD-VL": "diverged"}
    assert result.failed_count == 1
    assert "SemiCD-VL, 1 labels, seed 1: diverged" in said
    table = result.table.read_text(encoding="utf-8")
    assert "0 of 1 (1 diverged at step 1)" in table and "not a number" in table
    _, again = run(load_suite(tmp_path / "suite.toml"), tmp_path / "out")
    assert "2 of them done already" in again
    _, again = run(load_suite(tmp_path / "suite.toml"), tmp_path / "out", retry=True)
    assert "1 of them done already" in again


def test_processes_of_their_own_and_the_command(finished: tuple[Suite, Path, BenchmarkResult], tmp_path: Path) -> None:
    """One run is made anew by a process; its scores are those that were made in this one."""
    _, out, before = finished
    for path in (out / "jobs").glob("city-sup-only-1-s1-*.result.json"):
        path.unlink()
    for path in (out / "runs").glob("city-sup-only-1-s1-*"):
        shutil.rmtree(path)
    done = CliRunner().invoke(app, ["benchmark", str(write_suite(tmp_path, TINY)), "-o", str(out), "--jobs", "2"])
    assert done.exit_code == 0, done.output
    assert "IoU^c" in done.output
    after, _ = run(load_suite(tmp_path / "suite.toml"), out)
    assert [one["test"] for one in after.outcomes] == [one["test"] for one in before.outcomes]


# ------------------------------------------------------------------------------------------------ data and plan
def test_splits_are_nested_and_full_labels_take_part_twice(finished: tuple[Suite, Path, BenchmarkResult]) -> None:
    suite, out, _ = finished
    place = prepare_data(suite.data[0], out / "data")
    assert place is not None
    half, whole = (read_split(place.write_split_file(fraction, 1)) for fraction in (0.5, 1.0))
    assert {pair.name for pair in half.labelled} < {pair.name for pair in whole.labelled}
    assert len(half.labelled) == 4 and len(half.unlabelled) == 5
    assert [pair.name for pair in whole.unlabelled] == [
        f"{pair.name}{UNLABELLED_COPY_SUFFIX}" for pair in whole.labelled
    ]
    assert {pair.name for pair in half.test} == {pair.name for pair in whole.test}


def test_methods_of_a_seed_share_all_but_the_method(finished: tuple[Suite, Path, BenchmarkResult]) -> None:
    suite, out, _ = finished
    prepared = {"city": prepare_data(suite.data[0], out / "data")}
    jobs = [job for job in plan_jobs(suite, prepared, out).jobs if job.labelled == 1.0]
    one, other = (job.recipe for job in jobs)
    assert one.method.name == "supervised" and other.method.name == "semicd_vl"
    assert (one.data.split, one.model, one.train, one.seed) == (other.data.split, other.model, other.train, other.seed)
    assert one.pseudo is None and other.pseudo is not None


def test_one_draw_of_the_labels_for_all_seeds_where_it_is_wanted(finished: tuple[Suite, Path, BenchmarkResult]) -> None:
    suite, out, _ = finished
    entry = suite.data[0].model_copy(update={"draw_seed": 7})
    place = prepare_data(suite.data[0], out / "data")
    assert place is not None
    for given, splits in ((suite.data[0], {"0.5-0.json", "0.5-1.json"}), (entry, {"0.5-7.json"})):
        several = suite.model_copy(update={"data": (given,), "seeds": (0, 1)})
        jobs = [job for job in plan_jobs(several, {"city": place}, out).jobs if job.labelled == 0.5]
        assert {job.recipe.data.split.name for job in jobs if job.recipe.data.split is not None} == splits
        assert {job.recipe.seed for job in jobs} == {0, 1}


def test_a_changed_suite_makes_new_runs(finished: tuple[Suite, Path, BenchmarkResult]) -> None:
    suite, out, _ = finished
    prepared = {"city": prepare_data(suite.data[0], out / "data")}
    longer = suite.model_copy(update={"set": suite.set | {"train": suite.set["train"] | {"steps": 3}}})
    names = [{job.name for job in plan_jobs(one, prepared, out).jobs} for one in (suite, longer)]
    assert names[0].isdisjoint(names[1])


def test_networks_multiply_the_runs(finished: tuple[Suite, Path, BenchmarkResult], tmp_path: Path) -> None:
    _, out, _ = finished
    networks = '[[models]]\nname = "small"\nset = {decoder_channels = 4}\n[[models]]\nname = "large"\n[[data]]'
    suite = load_suite(write_suite(tmp_path, TINY.replace("[[data]]", networks)))
    jobs = plan_jobs(suite, {"city": prepare_data(suite.data[0], out / "data")}, out).jobs
    assert len({job.name for job in jobs}) == 3 * 2
    channels = {job.model: job.recipe.model.options["decoder_channels"] for job in jobs}
    assert channels == {"small": 4, "large": 8}


def test_a_data_set_of_ones_own(finished: tuple[Suite, Path, BenchmarkResult], tmp_path: Path) -> None:
    """Without a store, methods that learn from a VLM are left out."""
    suite, out, _ = finished
    place = prepare_data(suite.data[0], out / "data")
    assert place is not None and place.store is not None
    for store, methods in ((None, {"Sup-only"}), (place.store, {"Sup-only", "SemiCD-VL"})):
        named = f'store = "{store.as_posix()}"\n' if store else ""
        entry = f'[[data]]\nkind = "folder"\nname = "own"\nroot = "{place.root.as_posix()}"\n{named}'
        own = load_suite(write_suite(tmp_path, TINY.split("[[data]]")[0] + entry))
        planned = plan_jobs(own, {"own": prepare_data(own.data[0], tmp_path / "data")}, tmp_path)
        assert {job.method for job in planned.jobs} == methods
        assert all(job.recipe.data.root == place.root for job in planned.jobs)
        assert planned.left_out == (
            () if store else ("SemiCD-VL on 'own': it learns from a VLM and this data has no store.",)
        )


def test_what_cannot_work_together_is_left_out_of_a_matrix_saying_so(
    finished: tuple[Suite, Path, BenchmarkResult], tmp_path: Path
) -> None:
    _, out, _ = finished
    networks = '[[models]]\nname = "light"\n[[models]]\nname = "fc"\nset = {name = "fc_ef"}\n[[data]]'
    suite = load_suite(write_suite(tmp_path, TINY.replace("[[data]]", networks)))
    planned = plan_jobs(suite, {"city": prepare_data(suite.data[0], out / "data")}, out)
    assert {(job.method, job.model) for job in planned.jobs} == {
        ("Sup-only", "light"),
        ("SemiCD-VL", "light"),
        ("Sup-only", "fc"),
    }
    assert len(planned.left_out) == 1
    assert planned.left_out[0].startswith("SemiCD-VL with network fc: method 'semicd_vl' needs the heads")
    alone = TINY.replace("[methods.set.data]\ncrop_px = 64", '[methods.set.model]\nname = "fc_ef"')
    alone = alone.replace('pretrained = "none"\ndecoder_channels = 8', "")
    with pytest.raises(ConfigError, match=r"which model 'fc_ef' lacks\. Take model 'siam_light'"):
        suite = load_suite(write_suite(tmp_path, alone))
        plan_jobs(suite, {"city": prepare_data(suite.data[0], out / "data")}, out)


def test_a_network_that_knows_no_pretrained_weights_is_scored_at_its_last_step(
    finished: tuple[Suite, Path, BenchmarkResult], tmp_path: Path
) -> None:
    suite, out, _ = finished
    place = prepare_data(suite.data[0], out / "data")
    alone = TINY.split("[[data]]")[0].replace('pretrained = "none"\ndecoder_channels = 8', 'name = "fc_ef"\nwidth = 4')
    own = f'[[data]]\nkind = "folder"\nname = "own"\nroot = "{place.root.as_posix()}"\n'
    suite = load_suite(write_suite(tmp_path, alone.replace("labelled = [0.5, 1.0]", "labelled = [1.0]") + own))
    result, said = run(suite, tmp_path / "out")
    (only,) = result.outcomes  # SemiCD-VL has no VLM's labels here
    assert only["method"] == "Sup-only" and only["status"] == "finished", said
    assert 0 <= only["test_last"]["iou"] <= 1


def test_a_network_that_is_fitted_at_once_is_a_row(
    finished: tuple[Suite, Path, BenchmarkResult], tmp_path: Path
) -> None:
    """It saves no states to go on from: the selected step is its last one. Its cost is one pass, not its iterations."""
    place = prepare_data(finished[0].data[0], finished[1] / "data")
    text = f'labelled = [1.0]\nseeds = [0]\n[[methods]]\nname = "few"\nrecipe = "{RECIPES.as_posix()}/'
    text += 'few-labels-supervised.toml"\nset = {model = {gsd_m = 0.5}}\n'
    text += f'[[data]]\nkind = "folder"\nname = "own"\nroot = "{place.root.as_posix()}"\n'
    suite = load_suite(write_suite(tmp_path, text))
    result, said = run(suite, tmp_path / "out")
    (only,) = result.outcomes
    assert only["status"] == "finished", said
    assert only["test_last"] == only["test"] and 0 <= only["test"]["iou"] <= 1
    (job,) = plan_jobs(suite, {"own": prepare_data(suite.data[0], tmp_path / "out" / "data")}, tmp_path / "out").jobs
    assert job.cost == job.recipe.train.labelled_batch and job.steps == 100


def test_a_baseline_as_long_as_another_method(finished: tuple[Suite, Path, BenchmarkResult], tmp_path: Path) -> None:
    """By epochs, few labels mean few steps; `steps_of` gives the steps and the validations of the other method."""
    _, out, _ = finished
    epochs = TINY.replace("steps = 2\neval_every = 1", "epochs = 4").replace("labelled = [1.0]\n", "")
    more = '[[methods]]\nname = "as long"\nsteps_of = "SemiCD-VL"\n'
    more += f'recipe = "{RECIPES.as_posix()}/small-supervised.toml"\n[[data]]'
    suite = load_suite(write_suite(tmp_path, epochs.replace("[[data]]", more)))
    jobs = plan_jobs(suite, {"city": prepare_data(suite.data[0], out / "data")}, out).jobs
    steps = {job.method: (job.steps, job.recipe.train.eval_every) for job in jobs if job.labelled == 0.5}
    assert steps == {"Sup-only": (16, 50), "SemiCD-VL": (8, 50), "as long": (8, 50)}  # 4 labelled, 5 unlabelled by 2
    with pytest.raises(ConfigError, match=r"names no method 'SemiCD'\. Did you mean 'SemiCD-VL'"):
        load_suite(write_suite(tmp_path, epochs.replace("[[data]]", more.replace('"SemiCD-VL"', '"SemiCD"'))))


def test_test_scores_are_noted_at_each_validation(
    finished: tuple[Suite, Path, BenchmarkResult], tmp_path: Path
) -> None:
    """The picked step is at least as good as both others, on test; what validation chose stays what it was."""
    before = {(one["method"], one["labelled"]): one["test"] for one in finished[2].outcomes}
    text = TINY.replace('name = "tiny"', "test_best = true").replace("labelled = [0.5, 1.0]", "labelled = [0.5]")
    suite = load_suite(write_suite(tmp_path, text.replace("labelled = [1.0]", "labelled = [0.5]")))
    suite = suite.model_copy(update={"methods": suite.methods[:1]})
    (one,) = run(suite, tmp_path / "out")[0].outcomes
    record = json.loads((Path(one["run"]) / "run.json").read_text(encoding="utf-8"))
    assert one["test"]["iou"] == before["Sup-only", 0.5]["iou"]
    assert record["test_best"]["iou"] >= max(record["test"]["iou"], record["test_last"]["iou"])
    assert one["test_best"]["step"] in (1, 2) and not any(name.startswith("test_") for name in record["val"])
    assert "IoU^c, test-best" in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")


def test_runs_are_dealt_over_devices() -> None:
    assert choose_least_busy((), []) is None
    assert [
        choose_least_busy(("0", "1", "3"), busy) for busy in ([], ["0"], ["0", "1", "3", "0"], ["1", "0", "0", "1"])
    ] == [
        "0",
        "1",
        "1",
        "3",
    ]


def test_published_lists_and_a_second_data_set(tmp_path: Path) -> None:
    own, other = (folder_of_pairs(tmp_path / name, [f"{name}{at}" for at in range(8)]) for name in ("a", "b"))
    lists = {"5%/labeled": [0], "5%/unlabeled": [1, 2, 3], "val": [4, 5], "test": [6, 7]}
    for stem, numbers in lists.items():
        path = tmp_path / "lists" / f"{stem}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"a{number}\n" for number in numbers))
    entry = f'[[data]]\nkind = "folder"\nname = "own"\nroot = "{own.as_posix()}"\n'
    entry += f'lists = "{(tmp_path / "lists").as_posix()}"\nunlabelled = "{other.as_posix()}"\n'
    text = TINY.split("[[data]]")[0].replace("labelled = [0.5, 1.0]", "labelled = [0.05]") + entry
    suite = load_suite(write_suite(tmp_path, text))
    with pytest.raises((DataError, InputError)):  # the other set has no lists of its own: told, not guessed
        prepare_data(suite.data[0].model_copy(update={"lists": tmp_path / "none"}), tmp_path / "d").write_split_file(
            0.05, 0
        )
    place = prepare_data(suite.data[0], tmp_path / "data")
    assert place is not None
    division = read_split(place.write_split_file(0.05, 0))
    assert [pair.name for pair in division.labelled] == ["a0"]
    assert {pair.name[0] for pair in division.unlabelled} == {"b"}
    assert [pair.name for pair in division.test] == ["a6", "a7"]


@pytest.mark.parametrize(("fraction", "labelled", "unlabelled"), [(1.0, 4, 0), (0.0, 0, 4)])
def test_all_or_no_labels_with_published_lists(tmp_path: Path, fraction: float, labelled: int, unlabelled: int) -> None:
    """No lists are published for these shares: train.txt is divided, and the held-out pairs stay those of the lists."""
    root = folder_of_pairs(tmp_path / "a", [f"a{at}" for at in range(12)])
    for stem, numbers in {"train": range(4), "val": range(4, 8), "test": range(8, 12)}.items():
        (tmp_path / f"{stem}.txt").write_text("".join(f"a{number}\n" for number in numbers))
    place = prepare_data(FolderEntry(name="own", root=root, lists=tmp_path), tmp_path / "data")
    assert place is not None
    split = place.make_split(fraction, 0)
    assert (len(split.labelled), len(split.unlabelled)) == (labelled, unlabelled)
    assert [pair.name for pair in (*split.val, *split.test)] == [f"a{number}" for number in range(4, 12)]


@pytest.mark.parametrize(("name", "root"), [("levir", "LEVIR-CD-256"), ("whu", "WHU-CD-256")])
def test_the_shipped_suites_of_detectors_can_be_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, root: str
) -> None:
    """They have no fraction of labels, and their test pairs are those of the published list."""
    monkeypatch.chdir(tmp_path)
    folder_of_pairs(Path("data", root), [f"a{at}" for at in range(6)])
    Path("data", root, "list").mkdir()
    for number, subset in enumerate(("train", "val", "test")):
        Path("data", root, "list", f"{subset}.txt").write_text(f"a{2 * number}\na{2 * number + 1}\n")
    suite = load_suite(f"suites/table5-{name}")
    place = prepare_data(suite.data[0], tmp_path / "out" / "data")
    assert place is not None
    jobs = plan_jobs(suite, {suite.data[0].name: place}, tmp_path / "out").jobs
    assert {job.method for job in jobs} == {entry.name for entry in suite.detectors}
    assert {job.pairs for job in jobs} == {2}


def test_data_that_is_not_there_is_left_out_saying_so(tmp_path: Path) -> None:
    text = TINY.split("[[data]]")[0] + f'[[data]]\nkind = "real"\nroot = "{(tmp_path / "none").as_posix()}"\n'
    said = StringIO()
    with pytest.raises(DataError, match="no run is possible"):
        run_benchmark(load_suite(write_suite(tmp_path, text)), tmp_path / "out", console=Console(file=said, width=200))
    assert "data 'real' is left out" in said.getvalue()


# ------------------------------------------------------------------------------------------------ refused
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('kind = "city"', 'kind = "citi"', "kind = 'citi' is not known. Did you mean 'city'"),
        ("city_px = 192", "city_size = 192", "unknown key 'city_size'. Did you mean 'city_px'"),
        ("seeds = [1]", "seed = [1]", "unknown key 'seed'. Did you mean 'seeds'"),
        ("labelled = [0.5, 1.0]", "labelled = [0.5, 1.5]", "1.5"),
        ("labelled = [1.0]", "fractions = [1.0]", "unknown key 'fractions'"),
        ('name = "SemiCD-VL"', 'name = "Sup-only"', "two methods are called 'Sup-only'"),
        ('name = "tiny"', 'name = "tiny"\ncompare = [["SemiCDVL", "Sup-only"]]', "Did you mean 'SemiCD-VL'"),
        ('name = "SemiCD-VL"', 'name = "a/b"', "cannot name a folder"),
        ("seeds = [1]", "seeds = [1, 2, 1]", "1 occurs twice. Give each value once."),
        ("labelled = [0.5, 1.0]", "labelled = [0.5, 0.5]", "0.5 occurs twice. Give each value once."),
        ("seeds = [1]", "seeds = 3", "seeds = 3: a list belongs here, in square brackets."),
        ('name = "tiny"', 'name = "../tiny"', "name = '../tiny': cannot name the folder runs/NAME."),
        ('name = "tiny"', f'name = "{"n" * 300}"', "is longer than the name of a folder, 255 bytes."),
        ('kind = "city"', "kind = {a = 1}", "kind = {'a': 1} is not known."),
        ("seeds = [1]", f"seeds = [{2**62}]", "Input should be less than or equal to 8796093022208"),
        ('kind = "city"', f'kind = "city"\ndraw_seed = {2**62}', "draw_seed = 4611686018427387904: Input should be"),
    ],
)
def test_a_wrong_suite_is_refused_with_the_remedy(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in TINY
    with pytest.raises(ConfigError) as error:
        load_suite(write_suite(tmp_path, TINY.replace(old, new)))
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("steps = 2", "stepps = 2", "set of the suite: unknown key 'train.stepps'. Did you mean 'steps'?"),
        ("crop_px = 64\n\n[[data", "crop = 64\n\n[[data", "set of the method: unknown key 'data.crop'."),
        (
            "steps = 2",
            'steps = 2\nselect = "test"',
            "set test_best = true at the top of the suite: a column",
        ),
        (
            "[set.train]",
            '[set]\ndata = "x"\n[set.train]',
            "set of the suite: data = 'x': a value stands where a section",
        ),
        (
            "[set.train]",
            "[set]\npseudo = 3\n[set.train]",
            "set of the suite: pseudo = 3: a value stands where a section",
        ),
    ],
)
def test_a_wrong_change_of_a_recipe_is_sought_in_the_suite(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in TINY
    with pytest.raises(ConfigError) as error:
        check_suite(load_suite(write_suite(tmp_path, TINY.replace(old, new))))
    assert says in str(error.value) and ".toml" not in str(error.value)


def test_a_suite_of_very_many_rows_is_checked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pairs of 20,000 methods are gigabytes."""
    monkeypatch.setattr(Suite, "list_comparisons", lambda _: pytest.fail("all pairs are listed"))
    seeds, rows = range(20_000), '[[detectors]]\nname = "cva {0}"\nmethod = "cva"\n'
    detectors = "".join(rows.format(number) for number in seeds)
    text = TINY.replace("seeds = [1]", f"seeds = {list(seeds)}") + detectors
    began = time.process_time()
    assert len(load_suite(write_suite(tmp_path, text)).detectors) == len(seeds)
    with pytest.raises(ConfigError, match="two methods are called 'cva 19999'"):
        load_suite(write_suite(tmp_path, text + rows.format(19_999)))
    with pytest.raises(ConfigError, match="19999 occurs twice"):
        load_suite(write_suite(tmp_path, text.replace("19999]", "19999, 19999]")))
    assert time.process_time() - began < 15, "compared with each other they take minutes"


def test_a_recipe_is_no_suite() -> None:
    with pytest.raises(ConfigError, match=r"is a recipe, not a suite\. Run it with `semicdvl train "):
        load_suite(RECIPES / "small-supervised.toml")
    with pytest.raises(InputError, match=r"Did you mean 'suites/small'\?$"):
        load_suite("small")


def test_a_folder_of_a_training_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(OutputError, match=r"run: holds a run or a result \(run\.json\), and no benchmark"):
        run_benchmark(load_suite(write_suite(tmp_path, TINY)), tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["run.json"]


def test_a_recipe_may_be_a_shipped_one(tmp_path: Path) -> None:
    suite = load_suite(
        write_suite(tmp_path, TINY.replace(f"{RECIPES.as_posix()}/small-semicd_vl.toml", "small-semicd_vl"))
    )
    assert suite.methods[1].recipe == RECIPES / "small-semicd_vl.toml"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("miss_frac = 0.2", "mis_frac = 0.2", "Did you mean 'miss_frac'"),
        ("change_frac = 0.2", "changed = 0.2", "unknown key 'changed'"),
    ],
)
def test_unknown_settings_of_a_city_are_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    suite = load_suite(write_suite(tmp_path, TINY.replace(old, new)))
    with pytest.raises(ConfigError, match=says):
        prepare_data(suite.data[0], tmp_path / "data")
