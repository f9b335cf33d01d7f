"""The prompts of the foreground and the background concept, and named sets of them."""

from __future__ import annotations

from dataclasses import dataclass

from semicdvl.errors import ConfigError
from semicdvl.reading.json_files import shorten
from semicdvl.reading.limits import MAX_WORD_CHARACTERS, MAX_WORDS
from semicdvl.registry import suggest_nearest
from semicdvl.vlms.words import split_words, to_singular

BUILDING_WORDS = frozenset(
    f"{word}{ending}"
    for word in (
        *("building", "house", "roof", "rooftop", "warehouse", "home", "shed", "apartment building"),
        *("residential building", "industrial building"),
    )
    for ending in ("", "s")
) | {"factory", "factories"}
"""Words for buildings, in either number."""


@dataclass(frozen=True)
class Prompts:
    """The prompts of the two concepts that change event generation compares.

    Attributes:
        find: prompts of the foreground, synonyms of each other; its score is the maximum over them.
        background: prompts of everything else. Without them every pixel is foreground (paper, Fig. 3).

    Examples:
        >>> import semicdvl as cd
        >>> prompts = cd.Prompts(find=("house", "building"), background=("road", "grass"))
        >>> prompts.words, prompts.foreground
        (('house', 'building', 'road', 'grass'), (0, 1))
    """

    find: tuple[str, ...]
    background: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse empty lists, too many prompts, and prompts that are no words or given twice."""
        if not self.find:
            raise ConfigError("no prompt to look for; give at least one word, such as --find house,building.")
        if not self.background:
            raise ConfigError(
                "no background prompt: a VLM asked for one thing alone finds it everywhere. "
                "Give what else there is, such as --background road,grass,tree,water."
            )
        words = self.find + self.background
        if len(words) > MAX_WORDS:
            raise ConfigError(
                f"{len(words)} prompts were given, and {MAX_WORDS} are possible: a class is a number of 8 bits. "
                "Give fewer words."
            )
        long = next((word for word in words if len(word) > MAX_WORD_CHARACTERS or not word.isprintable()), None)
        if long is not None:
            raise ConfigError(f"the prompt '{shorten(long)}' is no word. Give words or short phrases.")
        twice = sorted({word for word in words if words.count(word) > 1})
        if twice:
            raise ConfigError(
                f"prompts given twice: {', '.join(twice)}. Name each word once, in --find or --background."
            )

    @property
    def words(self) -> tuple[str, ...]:
        """All prompts, those of the foreground first."""
        return self.find + self.background

    @property
    def finds_buildings(self) -> bool:
        """Whether buildings alone are looked for."""
        return all(word in BUILDING_WORDS for word in self.find)

    @property
    def foreground(self) -> tuple[int, ...]:
        """Indices of `find` in `words`."""
        return tuple(range(len(self.find)))


PROMPT_SETS: dict[str, Prompts] = {
    # the paper's own words
    "buildings": Prompts(("house", "building"), ("road", "grass", "tree", "water")),
    # what is left of a building that is gone; rubble and construction sites are words that the embedded VLM knows by
    # their meaning alone: it was neither trained nor measured on them
    "demolition": Prompts(
        ("house", "building"), ("road", "grass", "tree", "water", "bare ground", "rubble", "construction site")
    ),
    "roads": Prompts(("road", "street", "pavement"), ("building", "grass", "tree", "water", "bare soil")),
    "water": Prompts(("water", "river", "lake", "pond"), ("building", "road", "grass", "tree", "bare soil")),
    "forest": Prompts(("tree", "forest"), ("building", "road", "grass", "water", "bare soil")),
    "vegetation": Prompts(("vegetation", "tree", "grass"), ("building", "road", "water", "bare soil")),
    "bare_soil": Prompts(("bare soil", "sand"), ("building", "road", "grass", "tree", "water")),
}
"""Prompt sets by name; `buildings` is the paper's and the default."""


def resolve_prompts(
    *, find: str | None = None, background: str | None = None, prompt_set: str = "buildings"
) -> Prompts:
    """Return the prompts of a named set, with either list replaced by words with commas, semicolons or bars in between.

    Words are taken in lower case, each once; a plural counts as its singular (`vlms.words.split_words`).

    Words of the set that are no longer searched for become background ("house" with `find="road"`), unless other words
    of the set are still searched for and may be synonyms of them ("house" with `find="building"`).

    Raises:
        ConfigError: the set is unknown, or a list of prompts is empty or repeats a prompt.

    Examples:
        >>> import semicdvl as cd
        >>> cd.resolve_prompts(find="road", background="grass, tree")
        Prompts(find=('road',), background=('grass', 'tree'))
    """
    if prompt_set not in PROMPT_SETS:
        raise ConfigError(
            f"unknown prompt set '{prompt_set}'.{suggest_nearest(prompt_set, PROMPT_SETS)} "
            f"Known: {', '.join(PROMPT_SETS)}."
        )
    base = PROMPT_SETS[prompt_set]
    chosen = split_words(find) if find is not None else base.find
    searched = {to_singular(word) for word in chosen}
    if background is not None:
        others = split_words(background)
    else:  # the background of a set must not compete with the user's foreground
        others = tuple(word for word in base.background if to_singular(word) not in searched)
        others += () if searched & {to_singular(word) for word in base.find} else base.find
    return Prompts(chosen, others)
