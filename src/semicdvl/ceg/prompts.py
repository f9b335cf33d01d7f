"""What to look for, in words: the prompts of both concepts, and sets of them by name."""

from __future__ import annotations

from dataclasses import dataclass

from semicdvl.errors import ConfigError
from semicdvl.registry import suggest_nearest


@dataclass(frozen=True)
class Prompts:
    """The words of the two concepts that change event generation compares.

    Attributes:
        find: synonyms of what is looked for; its score is the maximum over them.
        background: what else there is. Without it every pixel is foreground (paper, Fig. 3).
    """

    find: tuple[str, ...]
    background: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse empty lists and words that stand on both sides."""
        if not self.find:
            raise ConfigError("no prompt to look for; give at least one word, such as --find house,building.")
        if not self.background:
            raise ConfigError(
                "no background prompt: a VLM asked for one thing alone finds it everywhere. "
                "Give what else there is, such as --background road,grass,tree,water."
            )
        words = self.find + self.background
        twice = sorted({word for word in words if words.count(word) > 1})
        if twice:
            raise ConfigError(
                f"prompts given twice: {', '.join(twice)}. Name each word once, in --find or --background."
            )

    @property
    def words(self) -> tuple[str, ...]:
        """All prompts, those that are looked for first."""
        return self.find + self.background

    @property
    def foreground(self) -> tuple[int, ...]:
        """Indices of `find` in `words`."""
        return tuple(range(len(self.find)))


PROMPT_SETS: dict[str, Prompts] = {
    # the paper's own words
    "buildings": Prompts(("house", "building"), ("road", "grass", "tree", "water")),
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
    """Return the prompts of a named set, with either list replaced by comma-separated words.

    Words of the set that are not looked for any more become background ("house" does for `find="road"`), unless some of
    the set's words still are looked for: the others may mean the same ("house" does for `find="building"`).

    Raises:
        ConfigError: the set is unknown, or the words don't make two lists.

    Examples:
        >>> import semicdvl as cd
        >>> cd.resolve_prompts(find="road", background="grass, tree")
        Prompts(find=('road',), background=('grass', 'tree'))
    """
    if prompt_set not in PROMPT_SETS:
        raise ConfigError(
            f"unknown prompt set '{prompt_set}'.{suggest_nearest(prompt_set, PROMPT_SETS)} Known: {', '.join(PROMPT_SETS)}."
        )
    base = PROMPT_SETS[prompt_set]
    chosen = _split_words(find) if find is not None else base.find
    if background is not None:
        others = _split_words(background)
    else:  # a set's background must not compete with what the user looks for
        others = tuple(word for word in base.background if word not in chosen)
        others += () if set(chosen) & set(base.find) else base.find
    return Prompts(chosen, others)


def _split_words(text: str) -> tuple[str, ...]:
    """Split comma-separated words, lower-case and stripped."""
    return tuple(word.strip().lower() for word in text.split(",") if word.strip())
