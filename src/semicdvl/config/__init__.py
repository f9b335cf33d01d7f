"""Recipes: one TOML file -> one frozen, validated object.

sections.py       a recipe, and its sections on network, method and training
data_sections.py  its sections on pairs, the VLM's labels and classes
section.py        what sections are derived from
recipe_files.py   reads a recipe over its base; finds the shipped ones
overrides.py      changes one key, as `--set` does
validation.py     plain values -> a section, with errors that name the nearest known key
label_values.py   what the values of a label file mean
"""

from semicdvl.config.data_sections import ClassesConfig, DataConfig, PseudoConfig
from semicdvl.config.label_values import parse_label_values
from semicdvl.config.recipe_files import (
    find_file_of_key,
    find_shipped,
    holds_key,
    list_shipped_recipes,
    load_recipe,
    locate_recipe,
    locate_shipped_recipes,
    merge_recipes,
    read_toml,
    read_with_base,
)
from semicdvl.config.section import ConfigSection
from semicdvl.config.sections import PartConfig, Recipe, TrainConfig, check_output_name
from semicdvl.config.validation import Location, parse_recipe, parse_section

__all__ = [
    "ClassesConfig",
    "ConfigSection",
    "DataConfig",
    "Location",
    "PartConfig",
    "PseudoConfig",
    "Recipe",
    "TrainConfig",
    "check_output_name",
    "find_file_of_key",
    "find_shipped",
    "holds_key",
    "list_shipped_recipes",
    "load_recipe",
    "locate_recipe",
    "locate_shipped_recipes",
    "merge_recipes",
    "parse_label_values",
    "parse_recipe",
    "parse_section",
    "read_toml",
    "read_with_base",
]
