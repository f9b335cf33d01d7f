"""The recipe of an adaptation: which network is trained, by which method, at which rates."""

from __future__ import annotations

from pathlib import Path

from semicdvl.config import Recipe, parse_recipe
from semicdvl.reading.regular_files import resolve_links
from semicdvl.training.run_record import SELF_TRAINING_FOLDER
from semicdvl.training.self_training.config import AdaptConfig

AERIAL_MODEL = {"name": "semicdvl.adapt.network:build"}
"""The embedded model's network, trained on aerial images; named as runs on disk do (`registry.MOVED_BUILDERS`)."""
AERIAL_RATES = {"lr": 0.0002, "head_lr_multiplier": 10}
"""The encoder changes little; the heads are new."""
SIAM_LIGHT_MODEL = {"name": "siam_light", "decoder_channels": 96}
SIAM_LIGHT_RATES = {"lr": 0.0005, "head_lr_multiplier": 4}
METHOD_SECTION = {
    "name": "semicd_vl",
    "dual_head": False,  # the VLM teaches the head that is used: nothing else could
    "lambda_vl": 6.0,
    "lambda_vl_end": 2.0,
    "vlm_over": "valid",
    "vlm_dice_weight": 1.0,  # change is rare and the VLM misses some of it: cross entropy alone detects too little
    "confidence_min_changed": 0.8,
    "pseudo_start_frac": 0.3,
    "lambda_c": 0.0,
}


def build_adapt_recipe(run: Path, config: AdaptConfig, *, side_px: int) -> Recipe:
    """Return the recipe of an adaptation: semi-supervised training with an empty labelled set."""
    is_aerial = config.backbone == "aerial"
    other_model = SIAM_LIGHT_MODEL | {"backbone": config.backbone, "pretrained": config.pretrained}
    content = {
        "name": resolve_links(run).name,
        "seed": config.seed,
        "data": {
            "root": str(run / SELF_TRAINING_FOLDER / "patches"),
            "labelled": 0,
            "val_frac": 0,
            "test_frac": 0,
            "crop_px": min(config.crop_px, side_px),
            "rot90": True,
            "vflip": 0.5,
        },
        "pseudo": {"store": str(run / SELF_TRAINING_FOLDER / "store")},
        "model": AERIAL_MODEL if is_aerial else other_model,
        "method": METHOD_SECTION,
        "train": {
            **(AERIAL_RATES if is_aerial else SIAM_LIGHT_RATES),
            "optimizer": "adamw",
            "select": "last",  # there is no true label to select by
            "steps": config.steps,
            "eval_every": max(1, config.steps // 6),  # nothing is evaluated: how often a checkpoint is saved
            "unlabelled_batch": config.batch,
            "device": config.device,
        },
    }
    return parse_recipe(content, source="adapt")
