"""Every shipped recipe is valid, names parts that exist, and its method and network fit together."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.support.paths import ROOT
from torch import nn

from semicdvl.benchmarking.config import load_suite
from semicdvl.benchmarking.jobs import check_suite
from semicdvl.config import Recipe, load_recipe, merge_recipes, parse_recipe, read_with_base
from semicdvl.data import DATASETS
from semicdvl.methods import METHODS
from semicdvl.methods.semicd_vl import SemiCDVL
from semicdvl.models import MODELS
from semicdvl.registry import resolve_builder
from semicdvl.training.compatibility import build_meta_network, check_compatibility
from semicdvl.training.length import compute_training_length
from semicdvl.training.parts import build_method
from semicdvl.types import PairFiles, Split

FOLDER = ROOT / "recipes"
RECIPES = sorted(path for path in FOLDER.rglob("*.toml") if path.relative_to(FOLDER).parts[0] not in ("base", "suites"))
SUITES = sorted((FOLDER / "suites").glob("*.toml"))


def title(path: Path) -> str:
    """A recipe's name: its path, with dashes."""
    return "-".join(path.relative_to(FOLDER).with_suffix("").parts)


@cache
def network(part: str) -> nn.Module:
    """A network without weights, by its model section as JSON."""
    return build_meta_network(json.loads(part))


@pytest.mark.parametrize("path", RECIPES, ids=title)
def test_a_recipe_builds(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == title(path)
    resolve_builder("data set", recipe.data.dataset, DATASETS)
    method = build_method(recipe)
    assert method.uses_vlm == (recipe.pseudo is not None)
    check_compatibility(recipe, method, network(recipe.model.model_dump_json()))


def test_every_published_row_has_its_recipe() -> None:
    names = {title(path) for path in RECIPES}
    assert {"small-supervised", "small-fixmatch", "small-semicd_vl"} <= names
    methods = ("supervised", "fixmatch", "semicd_vl")
    assert {f"{data}-{n:02d}-{m}" for data in ("levir", "whu") for n in (5, 10, 20, 40) for m in methods} <= names
    assert {f"table4-{n:02d}-{m}" for n in (5, 10) for m in methods[1:]} <= names
    others = ["unimatch-deeplab", "semicd", "semicdnet", "advent", "s4gan"]
    assert {f"table4-{n:02d}-{m}" for n in (5, 10) for m in others} <= names
    others += ["unimatch-psp", "supervised-deeplab", "supervised-psp", "ban"]
    assert {f"table2-{data}-{n:02d}-{m}" for data in ("levir", "whu") for n in (5, 10, 20, 40) for m in others} <= names
    assert {"table2-levir-05-semivl", "table2-levir-10-semivl"} <= names
    supervised = ("fc_ef", "fc_siam_diff", "fc_siam_conc", "stanet-pam", "snunet", "bit", "changeformer")
    assert sum(name.startswith("table7-") for name in names) == 7
    assert {f"table3-{data}-{m}{r}" for data in ("levir", "whu") for m in supervised for r in ("", "-r0")} <= names


def test_every_method_and_network_has_a_recipe_at_a_small_size() -> None:
    suite = load_suite(FOLDER / "suites" / "zoo.toml")
    used = [merge_recipes(read_with_base(entry.recipe), entry.set) for entry in suite.methods]
    assert {part["method"]["name"] for part in used} == set(METHODS)
    assert {part["model"]["name"] for part in used} == set(MODELS)
    for entry, part in zip(suite.methods, used, strict=True):
        recipe = parse_recipe(part, source=entry.name)
        check_compatibility(recipe, build_method(recipe), network(recipe.model.model_dump_json()))


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("table2-levir-05-unimatch-deeplab", 40_471_074),
        ("table2-levir-05-unimatch-psp", 46_706_626),
        ("table2-whu-40-semicd", 50_690_000),
        ("table3-levir-fc_ef", 1_350_578),
        ("table3-whu-stanet-pam", 16_929_152),
        ("table3-levir-snunet", 12_034_978),
        ("table3-levir-bit", 3_495_778),
        ("table3-whu-changeformer", 41_026_674),
    ],
)
def test_recipes_name_the_published_networks(name: str, published: int) -> None:
    """SemiCD's count is known to four digits."""
    path = next(path for path in RECIPES if title(path) == name)
    weights = sum(weight.numel() for weight in network(load_recipe(path).model.model_dump_json()).parameters())
    assert weights == (pytest.approx(published, rel=2e-4) if name.endswith("semicd") else published)


def test_published_settings_reach_the_methods() -> None:
    def built(name: str) -> tuple[Recipe, Any]:
        recipe = load_recipe(next(path for path in RECIPES if title(path) == name))
        return recipe, build_method(recipe)

    advent, method = built("table2-levir-05-advent")
    assert (advent.train.lr, advent.train.weight_decay, method.critic_lr) == (2.5e-4, 5e-4, 1e-4)
    assert (method.adversarial_weight, method.auxiliary_adversarial_weight) == (0.001, 0.0002)
    _, method = built("table2-whu-05-s4gan")
    assert (method.feature_weight, method.self_weight, method.confidence_true, method.strict) == (0.1, 1.0, 0.6, True)
    semicd, method = built("table2-levir-40-semicd")
    assert (semicd.train.lr, semicd.train.head_lr_multiplier, method.consistency_weight) == (0.001, 10.0, 30.0)
    unimatch, method = built("table2-whu-20-unimatch-psp")
    assert (unimatch.train.lr, unimatch.train.head_lr_multiplier, method.confidence_min) == (0.02, 1.0, 0.95)
    stanet, method = built("table3-levir-stanet-bam")
    assert stanet.model.options == {"attention": "bam"} and method.heads == {"change", "distance"}
    assert (stanet.train.optimizer, stanet.train.momentum, stanet.train.hold_frac) == ("adam", 0.5, 0.5)
    former, method = built("table3-whu-changeformer")
    assert method.auxiliary_weights == (0.5, 0.5, 0.5, 0.8) and former.train.power == 1.0
    ban, _ = built("table2-whu-10-ban")
    assert (ban.train.clip_norm, ban.train.warmup_steps, ban.train.weight_decay) == (0.01, 1500, 0.01)


R0 = ("sgd", 0.02, 1.0, 0.9, 1e-4, 0.9, 80)
PUBLISHED = {
    "table2-levir-05-supervised-deeplab": (*R0, 16),
    "table2-whu-40-supervised-psp": (*R0, 16),
    "table2-levir-20-unimatch-deeplab": (*R0, 8),
    "table2-whu-10-unimatch-psp": (*R0, 8),
    "table2-levir-10-semicdnet": (*R0, 8),
    "table2-levir-05-semivl": (*R0, 8),
    "table2-whu-05-semicd": ("sgd", 0.001, 10.0, 0.9, 1e-4, 0.9, 80, 8),
    "table2-levir-05-advent": ("sgd", 2.5e-4, 10.0, 0.9, 5e-4, 0.9, 80, 8),
    "table2-levir-05-s4gan": ("sgd", 2.5e-4, 10.0, 0.9, 5e-4, 0.9, 80, 8),
    "table2-levir-05-ban": ("adamw", 1e-4, 10.0, 0.9, 1e-4, 1.0, None, 8),
    "levir-05-fixmatch": ("sgd", 0.02, 10.0, 0.9, 1e-4, 0.9, 80, 8),
    "whu-05-semicd_vl": ("sgd", 0.02, 10.0, 0.9, 1e-4, 0.9, 80, 8),
    "table4-05-unimatch-deeplab": (*R0, 8),
    "table4-10-semicd_vl": ("sgd", 0.02, 10.0, 0.9, 1e-4, 0.9, 80, 8),
    "table3-levir-fc_ef": ("sgd", 0.01, 1.0, 0.9, 5e-4, 1.0, 200, 8),
    "table3-whu-fc_siam_diff": ("sgd", 0.01, 1.0, 0.9, 5e-4, 1.0, 200, 8),
    "table3-whu-fc_siam_conc": ("sgd", 0.01, 1.0, 0.9, 5e-4, 1.0, 200, 8),
    "table3-levir-bit": ("sgd", 0.01, 1.0, 0.9, 5e-4, 1.0, 200, 8),
    "table3-levir-stanet-pam": ("adam", 0.001, 1.0, 0.5, 0.0, 1.0, 200, 8),
    "table3-whu-stanet-bam": ("adam", 0.001, 1.0, 0.5, 0.0, 1.0, 200, 8),
    "table3-whu-snunet": ("adamw", 0.001, 1.0, 0.9, 0.01, 0.0, 100, 16),
    "table3-levir-changeformer": ("adamw", 1e-4, 1.0, 0.9, 0.01, 1.0, 200, 16),
    "table3-levir-bit-r0": (*R0, 16),
    "table3-whu-stanet-pam-r0": (*R0, 16),
}
"""Recipe -> optimiser, rate, rate of all but the encoder over it, momentum, decay, power, epochs, labelled batch."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_have_the_published_optimisers_and_lengths(name: str) -> None:
    recipe = load_recipe(next(path for path in RECIPES if title(path) == name))
    train = recipe.train
    optimiser = (train.optimizer, train.lr, train.head_lr_multiplier, train.momentum, train.weight_decay, train.power)
    assert (*optimiser, train.epochs, train.labelled_batch) == PUBLISHED[name]
    assert train.unlabelled_batch == 8 and train.ema == 0 and train.precision == "fp32" and train.select == "val"
    extras = {"clip_norm": None, "warmup_steps": 0, "hold_frac": 0.0, "halve_frac": 0.0, "steps": None}
    for ending, own in OWN.items():
        extras |= own if name.endswith(ending) else {}
    assert {key: getattr(train, key) for key in extras} == extras


OWN = {
    "-ban": {"clip_norm": 0.01, "warmup_steps": 1000, "steps": 40_000},
    "-stanet-pam": {"hold_frac": 0.5},
    "-stanet-bam": {"hold_frac": 0.5},
    "-snunet": {"halve_frac": 0.08},
}
"""Ending of a recipe's name -> what it has beside an ordinary schedule."""


@pytest.mark.parametrize(
    ("name", "scale", "vflip", "rot90"),
    [
        ("table2-levir-05-unimatch-deeplab", (0.8, 1.2), 0.0, False),
        ("levir-05-semicd_vl", (0.8, 1.2), 0.0, False),
        ("table2-levir-05-semicd", (0.5, 2.0), 0.0, False),
        ("table2-levir-05-ban", (0.8, 1.2), 0.5, True),
        ("table3-levir-fc_ef", (1.0, 1.2), 0.5, False),
        ("table3-whu-bit", (1.0, 1.2), 0.5, False),
        ("table3-levir-changeformer", (1.0, 1.2), 0.5, False),
        ("table3-levir-stanet-pam", (1.0, 1.0), 0.0, False),
        ("table3-whu-snunet", (1.0, 1.0), 0.5, True),
        ("table3-whu-snunet-r0", (0.8, 1.2), 0.0, False),
    ],
)
def test_recipes_have_the_published_crops_and_flips(
    name: str, scale: tuple[float, float], vflip: float, rot90: bool
) -> None:
    data = load_recipe(next(path for path in RECIPES if title(path) == name)).data
    assert (data.crop_px, data.scale, data.vflip, data.rot90) == (256, scale, vflip, rot90)


def pairs(count: int, name: str) -> tuple[PairFiles, ...]:
    return tuple(PairFiles(f"{name}{at}", Path("a"), Path("b")) for at in range(count))


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("levir-05-semicd_vl", 67_600),
        ("whu-05-fixmatch", 56_480),
        ("levir-40-semicd_vl", 42_720),
        ("levir-05-supervised", 1_760),
        ("table2/levir-05-unimatch-deeplab", 67_600),
        ("table2/whu-05-s4gan", 56_480),
        ("table2/levir-05-supervised-psp", 1_760),
    ],
)
def test_lengths_are_80_epochs_of_the_published_lists(name: str, steps: int) -> None:
    recipe = load_recipe(FOLDER / f"{name}.toml")
    images = 7120 if "levir" in name else 5947
    labelled = images * int(name.split("-")[1]) // 100  # rounded down, as in the lists
    division = Split(pairs(labelled, "x"), pairs(images - labelled, "u"), (), ())
    length = compute_training_length(recipe.train, division, uses_unlabelled=build_method(recipe).uses_unlabelled)
    assert length.steps == steps
    assert length.eval_every == length.epoch


def test_ablations_change_one_thing_after_another() -> None:
    methods = [build_method(load_recipe(path)) for path in sorted((FOLDER / "table7").glob("*.toml"))]
    assert not methods[0].uses_vlm
    assert methods[-1] == SemiCDVL()
    switches = [
        (method.dual_head, method.decoupled, method.lambda_c > 0)
        for method in methods[1:]
        if isinstance(method, SemiCDVL)
    ]
    off, on = False, True
    assert switches == [(off, off, off), (off, off, off), (on, off, off), (on, off, on), (on, on, off), (on, on, on)]
    stores = [load_recipe(FOLDER / "table7" / f"{stem}.toml").pseudo for stem in ("2-vlm-pixel", "3-vlm-mixed")]
    assert stores[0] != stores[1], "pixel-level and mixed labels are two stores"


def _apart_from(recipe: Recipe, *sections: str) -> dict[str, Any]:
    """Return a recipe without its name and some sections."""
    return recipe.model_dump(exclude={"name", *sections})


TABLE8 = ((0.9, 0.9), (0.8, 0.8), (0.5, 0.5), (0.1, 0.1), (0.8, 0.5), (0.5, 0.8), (0.8, 0.1), (0.1, 0.8))
"""Thresholds of change and segmentation labels of the eight published rows."""

TABLE9 = (
    *(("lambda_vl", weight) for weight in (1.0, 0.5, 0.01)),
    *(("lambda_c", weight) for weight in (0.1, 1.0, 0.5, 0.01)),
)
"""The weight that is not 0.1 in each of the seven published rows."""


def test_thresholds_and_weights_are_the_published_rows_and_change_nothing_else() -> None:
    """Table 8 is made by stores, and Table 9 by one weight of the method; all else is SemiCD-VL's row of Table 2."""
    whole = load_recipe(FOLDER / "levir-05-semicd_vl.toml")
    assert {title(path) for path in RECIPES if title(path).startswith(("table8-", "table9-"))} == {
        *(f"table8-change-{change}-segmentation-{seen}" for change, seen in TABLE8),
        *(f"table9-{field}-{weight}" for field, weight in TABLE9),
    }
    for change, seen in TABLE8:
        recipe = load_recipe(FOLDER / "table8" / f"change-{change}-segmentation-{seen}.toml")
        assert recipe.pseudo is not None
        same = (change, seen) == (0.8, 0.8)
        assert recipe.pseudo.store == Path("runs/store-levir" if same else f"runs/store-levir-{change}-{seen}")
        assert _apart_from(recipe, "pseudo") == _apart_from(whole, "pseudo")
    for field, weight in TABLE9:
        recipe = load_recipe(FOLDER / "table9" / f"{field}-{weight}.toml")
        assert build_method(recipe) == SemiCDVL(**{field: weight})
        assert _apart_from(recipe, "method") == _apart_from(whole, "method")


@pytest.mark.parametrize("data", ["levir", "whu"])
@pytest.mark.parametrize("share", [5, 10, 20, 40])
def test_official_recipes_make_the_public_codes_choices(data: str, share: int) -> None:
    folder = FOLDER / "official"
    guided, plain = (load_recipe(folder / f"{data}-{share:02d}-{name}.toml") for name in ("semicd_vl", "fixmatch"))
    assert build_method(guided) == SemiCDVL.official()
    assert build_method(plain) == SemiCDVL.official(vlm_guidance=False, lambda_c=0.0)
    for recipe in (guided, plain):
        whole = load_recipe(FOLDER / f"{data}-{share:02d}-semicd_vl.toml")
        assert _apart_from(recipe, "method", "pseudo") == _apart_from(whole, "method", "pseudo")


def test_unimatch_v2_has_the_published_settings() -> None:
    for data in ("levir", "whu"):
        for share in (5, 10, 20, 40):
            plain, guided = (
                load_recipe(FOLDER / "students" / f"{data}-{share:02d}-{name}.toml")
                for name in ("unimatch_v2", "unimatch_v2_vl")
            )
            for recipe in (plain, guided):
                train = recipe.train
                assert (train.optimizer, train.lr, train.lr * train.head_lr_multiplier) == ("adamw", 5e-6, 2e-4)
                assert (train.weight_decay, train.power, train.momentum, train.epochs) == (0.01, 0.9, 0.9, 60)
                assert (train.ema, train.ema_ramp, train.labelled_batch, train.unlabelled_batch) == (0.996, True, 8, 8)
                assert recipe.data.crop_px == 252 and recipe.data.scale == (0.8, 1.2)
                assert recipe.model.options["backbone"] == "vit_base_patch14_dinov2"
                root = Path(f"data/{data.upper()}-CD-256")
                assert (recipe.data.root, recipe.data.labelled) == (root, root / "list" / f"{share}%")
            assert (plain.method.name, guided.method.name) == ("unimatch_v2", "unimatch_v2_vl")
            assert guided.pseudo is not None and guided.pseudo.store == Path(f"runs/store-{data}")


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_a_suite_names_recipes_that_are_there(path: Path) -> None:
    suite = load_suite(path)
    assert suite.name == path.stem and len(suite.seeds) >= 3
    check_suite(suite)  # each method with the suite's changes is built, and fits its network
    for method in suite.methods:
        assert load_recipe(method.recipe).method.name
