"""A fault in a recipe is told once, in a sentence, with the file and the key that it stands in."""

from pathlib import Path

import pytest

import semicdvl as cd
from semicdvl.config import load_recipe
from semicdvl.errors import ConfigError, DataError, InputError
from semicdvl.synthetic.write import write_city_patches


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patches")
    write_city_patches(cd.generate_city(cd.CitySpec(size_px=(192, 256), seed=3, change_frac=0.1)), folder, size_px=64)
    return folder


RECIPE = """
name = "mine"
[data]
root = "data"
labelled = 0.5
[method]
name = "supervised"
[train]
steps = 2
"""


def _write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def _refuse(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as refused:
        load_recipe(path, overrides=overrides)
    return str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("labelled = 0.5", "labelled = 50", "data.labelled = 50: is no fraction. Give a number from 0 to 1"),
        ("labelled = 0.5", "labelled = [0.5]", "data.labelled = [0.5]: Input should be a valid number."),
        ("steps = 2", "steps = 2\nepochs = 1", "give either steps or epochs, not both."),
        ("[train]", "[[train]]", "a value stands where a section belongs. Write its keys below [train]."),
        ("[train]", "[classes]\nnames = ['a']\n[train]", "1 class names are given. Name 2 to 255 classes."),
        ('"mine"', '"../elsewhere"', "name = '../elsewhere': cannot name the folder runs/NAME"),
        ('"mine"', '""', "name = '': cannot name the folder runs/NAME"),
    ],
)
def test_a_fault_is_one_sentence_without_the_words_of_the_checker(
    old: str, new: str, words: str, tmp_path: Path
) -> None:
    path = _write(tmp_path, RECIPE.replace(old, new))
    told = _refuse(path)
    assert told.startswith(f"{path}: ") and words in told
    assert told.count(str(path)) == 1
    own = told.replace("../elsewhere", "")  # the value that the test gives
    assert not [noise for noise in ("Value error", "constrained", "union", "Config", ".;", "..") if noise in own]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"mine"', '"mine"\nsteps = 3', "unknown key 'steps'. 'steps' is a key of [train]: write it there."),
        ("[method]", "[train.method]", "unknown key 'train.method'. 'method' is a section of its own: [method]."),
        ("steps = 2", "steps = 2\nseed = 3", "unknown key 'train.seed'. 'seed' stands above all sections."),
        ("steps = 2", "stepps = 2", "unknown key 'train.stepps'. Did you mean 'steps'?"),
    ],
)
def test_a_key_of_another_section_is_sent_there(old: str, new: str, words: str, tmp_path: Path) -> None:
    assert words in _refuse(_write(tmp_path, RECIPE.replace(old, new)))


def test_the_file_of_a_chain_is_named_that_holds_the_fault(tmp_path: Path) -> None:
    bottom = _write(tmp_path, RECIPE.replace("steps = 2", "stepps = 2"), "bottom.toml")
    middle = _write(tmp_path, 'base = "bottom.toml"\n[data]\ncrop_px = 1\n', "middle.toml")
    top = _write(tmp_path, 'base = "middle.toml"\nname = "top"\n', "top.toml")
    told = _refuse(top)
    assert f"{bottom}: unknown key 'train.stepps'" in told and f"{middle}: data.crop_px = 1" in told
    assert str(top) not in told


def test_an_option_of_the_command_line_is_named_in_place_of_the_file(tmp_path: Path) -> None:
    told = _refuse(_write(tmp_path, RECIPE), "train.lr=-1", "seed=3")
    assert told == "--set train.lr=-1: train.lr = -1: Input should be greater than 0."


def test_a_base_may_be_a_shipped_recipe_but_the_file_beside_comes_first(tmp_path: Path) -> None:
    path = _write(tmp_path, 'base = "small-supervised"\nname = "mine"\n[data]\nroot = "data"\n')
    recipe = load_recipe(path)
    assert (recipe.name, recipe.model.options["backbone"]) == ("mine", "efficientnet_lite0")
    _write(tmp_path, RECIPE, "small-supervised")
    assert load_recipe(path).train.steps == 2


def test_a_misspelt_base_ends_in_a_question(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Did you mean 'small-supervised'\?$"):
        load_recipe(_write(tmp_path, 'base = "small-supervized"\n'))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_recipe_of_another_editor_is_read(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(RECIPE.replace("\n", "\r\n").encode(encoding))
    assert load_recipe(path).name == "mine"


def test_a_recipe_that_is_not_utf_8_says_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(RECIPE.replace("mine", "Zürich").encode("latin-1"))
    with pytest.raises(InputError, match=r"mine\.toml: is not text in UTF-8.*Save it as text in UTF-8"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"supervised"', '"suprevised"', "unknown method 'suprevised'. Did you mean 'supervised'?"),
        ('"supervised"', '"supervised"\ndice_wieght = 1.0', "has no option 'dice_wieght'. Did you mean 'dice_weight'?"),
        ("[train]", '[model]\nname = "fc_eff"\n[train]', "unknown model 'fc_eff'. Did you mean 'fc_ef'?"),
        ("[train]", '[model]\nname = "fc_ef"\nwidht = 4\n[train]', "has no option 'widht'. Did you mean 'width'?"),
        ("[data]", '[data]\ndataset = "fodler"', "unknown data set 'fodler'. Did you mean 'folder'?"),
    ],
)
def test_a_part_that_cannot_be_built_is_told_with_the_recipe(
    old: str, new: str, words: str, patches: Path, tmp_path: Path
) -> None:
    path = _write(tmp_path, RECIPE.replace(old, new).replace('"data"', f'"{patches}"'))
    with pytest.raises(ConfigError) as refused:
        cd.train(path, tmp_path / "run", quiet=True)
    assert str(refused.value).startswith(f"{path}: ") and words in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("labelled", ["5%", "5%.txt"])
def test_labelled_pairs_that_are_neither_a_fraction_nor_a_folder(
    labelled: str, patches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "5%.txt").write_text("a.png\n")
    path = _write(tmp_path, RECIPE.replace('"data"', f'"{patches}"').replace("0.5", f'"{labelled}"'))
    with pytest.raises(DataError, match=rf"data\.labelled = '{labelled}': is neither a fraction, such as 0\.05 for 5"):
        cd.train(path, tmp_path / "run", quiet=True)


def test_a_suite_is_no_recipe_and_a_folder_that_is_not_there_names_the_option(tmp_path: Path) -> None:
    suite = _write(tmp_path, '[[data]]\nkind = "folder"\n', "suite.toml")
    assert _refuse(suite) == (
        f"{suite}: is a suite, which compares several recipes. Run it with `semicdvl benchmark {suite}`."
    )
    with pytest.raises(InputError, match=r"nowhere: does not exist\..*--set data\.root=DIR"):
        cd.train(_write(tmp_path, RECIPE.replace('"data"', '"nowhere"')), tmp_path / "run", quiet=True)


@pytest.mark.parametrize("base", ["a" * 300, "é" * 200])
def test_a_base_that_no_system_has_is_refused_by_the_recipe(base: str, tmp_path: Path) -> None:
    path = _write(tmp_path, f'base = "{base}"\n')
    with pytest.raises(InputError, match=r"are possible\. Correct the name in .*mine\.toml\."):
        load_recipe(path)


def test_a_chain_of_very_many_bases_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, RECIPE, "0.toml")
    for number in range(1, 1_200):
        path = _write(tmp_path, f'base = "{number - 1}.toml"\n', f"{number}.toml")
    assert "recipes that extend each other" in _refuse(path)
    assert load_recipe(tmp_path / "99.toml").name == "mine"


@pytest.mark.parametrize(
    ("text", "override", "why"),
    [
        ("model = 3\n" + RECIPE, "width=1", "--set width: unknown key"),
        (RECIPE, f"data.options.{'.'.join('a' * 3_000)}=1", "more than 100 levels deep. Give a plain value."),
        (RECIPE, f"data.options.a={'1' * 30}", "more digits than 64 bits hold. Give a plain value."),
    ],
)
def test_an_option_that_cannot_be_set_is_refused(text: str, override: str, why: str, tmp_path: Path) -> None:
    assert why in _refuse(_write(tmp_path, text), override)
