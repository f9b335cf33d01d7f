"""Networks: two dates in, `Outputs` out.

A builder takes its settings by keyword and returns an `nn.Module` with

    heads       which of `types.HEADS` it has
    symmetric   whether change stays as it is when the dates are swapped
    encoder     the part that starts from pretrained weights (its own learning rate); everything else is "head".
                Networks that start from nothing have none.
    forward(t1_BCHW, t2_BCHW, *, heads=None) -> Outputs

A network with parts that only training needs has `drop_train_heads()`, which removes them and returns the network.

Images are RGB, normalised with the ImageNet mean and deviation, and of any size; the outputs have the input's size.
"""

MODELS: dict[str, str] = {
    "siam_light": "semicdvl.models.siam_light:build_siam_light",
    "deeplab": "semicdvl.models.deeplab:build_deeplab",
    "psp": "semicdvl.models.psp:build_psp",
    "cct": "semicdvl.models.cct:build_cct",
    "fc_ef": "semicdvl.models.fc_siam:build_fc_ef",
    "fc_siam_diff": "semicdvl.models.fc_siam:build_fc_siam_diff",
    "fc_siam_conc": "semicdvl.models.fc_siam:build_fc_siam_conc",
    "stanet": "semicdvl.models.stanet:build_stanet",
    "snunet": "semicdvl.models.snunet:build_snunet",
    "bit": "semicdvl.models.bit:build_bit",
    "changeformer": "semicdvl.models.changeformer:build_changeformer",
    "ban": "semicdvl.models.ban:build_ban",
    "siam_unet": "semicdvl.models.siam_unet:build_siam_unet",
}
"""Name -> builder. One more network: one more file and one line here."""

SPECIAL_HEADS: dict[str, tuple[str, ...]] = {
    "siam_light": ("vlm_change", "segmentation", "features", "perturbed"),
    "deeplab": ("perturbed",),  # and `auxiliary`, where it is built with one
    "psp": ("perturbed",),
    "cct": ("auxiliary",),
    "stanet": ("distance",),
    "changeformer": ("auxiliary",),
    "siam_unet": ("perturbed",),
}
"""What a network, as it is by default, has besides `change`: known without building it."""


def models_with_heads(heads: frozenset[str]) -> tuple[str, ...]:
    """Return the names of the networks that have all of these heads, for the sentence that refuses one without."""
    return tuple(name for name in MODELS if heads <= {"change", *SPECIAL_HEADS.get(name, ())})
