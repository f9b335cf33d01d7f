"""The prompts of the foreground and the background concept, named sets of them, and the prompts of several classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from semicdvl.errors import ConfigError
from semicdvl.reading.json_files import shorten
from semicdvl.reading.limits import MAX_WORD_CHARACTERS, MAX_WORDS
from semicdvl.registry import suggest_nearest
from semicdvl.types import ClassLegend
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


NO_CHANGE_CLASSES = ("background", "other")
"""Names of a class that is all that is left: what becomes it, or was it, is told by the other class."""


@dataclass(frozen=True)
class ClassConcept(Prompts):
    """One class against all others, in the order of words in which the VLM was asked.

    Attributes:
        order: all prompts, as they were asked.
    """

    order: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check nothing: the words were checked with those of all classes."""

    @property
    def words(self) -> tuple[str, ...]:
        """All prompts."""
        return self.order

    @property
    def foreground(self) -> tuple[int, ...]:
        """Indices of `find` in `words`."""
        return tuple(self.order.index(word) for word in self.find)


@dataclass(frozen=True)
class ClassPrompts:
    """The classes of the ground at a date, each a concept with prompts of its own.

    Ground has changed where the class of the dates is another one and one of them is `changing`. With two classes of
    which one is changing this is the paper's foreground and background.

    Attributes:
        names: of the classes 0 .. K-1.
        words: prompts of each class, synonyms of each other; none for a class that the VLM cannot be asked for, which
            then no label of the VLM names.
        changing: names of the classes whose coming and going is change.

    Raises:
        ConfigError: names don't tell the classes apart, fewer than two classes have prompts, prompts are given twice or
            are no words, or a changing class is unknown or has no prompts.

    Examples:
        >>> from semicdvl.ceg.prompts import ClassPrompts
        >>> classes = ClassPrompts(("background", "building"), (("road", "grass"), ("house",)), ("building",))
        >>> classes.prompts
        Prompts(find=('house',), background=('road', 'grass'))
    """

    names: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    changing: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse classes and prompts that cannot be told apart."""
        ClassLegend(self.names)
        if len(self.words) != len(self.names):
            raise ConfigError(f"prompts of {len(self.words)} classes were given for {len(self.names)} names.")
        if sum(map(bool, self.words)) < 2:
            raise ConfigError("fewer than two classes have prompts: a VLM needs at least two to choose from.")
        if not self.changing:
            raise ConfigError("no class is named whose change counts. Name one in `changing`, or leave it out for all.")
        for name in self.changing:
            if name not in self.names:
                hint = suggest_nearest(name, self.names)
                raise ConfigError(
                    f"`changing` names '{name}', which is no class.{hint} Known: {', '.join(self.names)}."
                )
            if not self.words[self.names.index(name)]:
                raise ConfigError(f"the class '{name}' is `changing` and has no prompts. Give it some.")
        owner: dict[str, str] = {}
        for name, words in zip(self.names, self.words, strict=True):
            for word in words:
                if owner.setdefault(word, name) != name:
                    raise ConfigError(f"the prompt '{word}' is of both '{owner[word]}' and '{name}'. Give it to one.")
        _ = self.prompts  # which checks the words

    @property
    def prompts(self) -> Prompts:
        """The first changing class against all others; its words, in this order, are what the VLM is asked."""
        first = self.names.index(self.changing[0])
        rest = [words for at, words in enumerate(self.words) if at != first]
        return Prompts(self.words[first], tuple(word for words in rest for word in words))

    @property
    def concepts(self) -> tuple[ClassConcept, ...]:
        """Each changing class against all others."""
        return tuple(self._make_concept((name,)) for name in self.changing)

    @property
    def searched(self) -> ClassConcept:
        """All changing classes together against the others."""
        return self._make_concept(self.changing)

    @property
    def precedence(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """Index of each class with prompts and the indices of these; of equal scores the earlier class wins a pixel."""
        order = [*self.changing, *(name for name in self.names if name not in self.changing)]
        words = self.prompts.words
        indices = [self.names.index(name) for name in order]
        return tuple((at, tuple(words.index(word) for word in self.words[at])) for at in indices if self.words[at])

    def _make_concept(self, names: Sequence[str]) -> ClassConcept:
        """Return some classes against the others."""
        order = self.prompts.words
        find = {word for name in names for word in self.words[self.names.index(name)]}
        of_names, others = (tuple(word for word in order if (word in find) == side) for side in (True, False))
        return ClassConcept(of_names, others, order)


def build_class_prompts(
    names: Sequence[str], prompts: Mapping[str, Sequence[str]], changing: Sequence[str] | None = None
) -> ClassPrompts:
    """Return the prompts of classes, given by name.

    Args:
        names: of the classes, in the order of their index.
        prompts: of each class; a class that the VLM cannot be asked for may be left out.
        changing: classes whose coming and going is change; None: all with prompts, but for one that is named
            "background" or "other".

    Raises:
        ConfigError: prompts are of an unknown class, or see `ClassPrompts`.

    Examples:
        >>> from semicdvl.ceg.prompts import build_class_prompts
        >>> build_class_prompts(("ground", "water"), {"ground": ("grass", "road"), "water": ("river",)}).changing
        ('ground', 'water')
    """
    for name in prompts:
        if name not in names:
            hint = suggest_nearest(name, list(names))
            raise ConfigError(f"there are prompts for '{name}', which is no class.{hint} Known: {', '.join(names)}.")
    if changing is None:
        changing = [name for name in names if prompts.get(name) and name.lower() not in NO_CHANGE_CLASSES]
    return ClassPrompts(tuple(names), tuple(tuple(prompts.get(name, ())) for name in names), tuple(changing))


def resolve_prompts(
    *, find: str | None = None, background: str | None = None, prompt_set: str = "buildings"
) -> Prompts:
    """Return the prompts of a named set, with either list replaced by words with commas, semicolons or bars in between.

    Words are taken in lower case, each once; a plural counts as its singular (`vlms.words.split_words`).

    Words of the set that are not searched for become background ("house" with `find="road"`), unless other words
    of the set are still searched for and may be synonyms of them ("house" with `find="building"`).

    Args:
        find: what to look for, such as "house, building"; None: as in the set.
        background: what else is there, such as "road, grass, tree"; None: as in the set.
        prompt_set: a name of `list_prompt_sets`.

    Returns:
        Prompts: the words of the foreground and those of the background, normalised.

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
