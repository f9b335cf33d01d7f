"""Networks: two dates in, `Outputs` out.

A builder takes its settings by keyword and returns an `nn.Module` with

    heads       which of `types.HEADS` it has; without it: `change` alone
    symmetric   whether the change logits stay as they are when the dates are swapped
    encoder     the part that starts from pretrained weights (its own learning rate); everything else is "head".
                Networks that are trained from scratch have none.
    forward(t1_BCHW, t2_BCHW, *, heads=None) -> Outputs

A network with parts that only training needs has `drop_train_heads()`, which removes them and returns the network. One
that measures in metres has `set_ground_sampling(gsd_m)`, one that cannot be compiled says why in `untraceable`.

Images are RGB, normalised with the ImageNet mean and deviation, and of any size; the outputs have the input's size.
Every network also takes the option `bands`: more of them, standardised, see `models.common.bands`. A builder that has
an option of that name is handed it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from semicdvl.models.common.size_check import refuse_giant
from semicdvl.registry import USER, Origin, build_part, list_options

if TYPE_CHECKING:
    from torch import nn

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
    "dpt": "semicdvl.models.dpt:build_dpt",
}
"""Name -> builder. Adding a network takes one file and one line here; its heads are declared in its own file."""


def list_models() -> tuple[str, ...]:
    """List the names of the networks that `create_model` and the recipes know.

    Examples:
        >>> import semicdvl as cd
        >>> "siam_light" in cd.list_models()
        True
    """
    return tuple(MODELS)


BANDS_OPTION = "bands"
"""Option of every network: how many bands its images have; 3 if it is not given."""


def create_model(name: str, **options: Any) -> nn.Module:
    """Build a network by its name.

    Args:
        name: a name of `list_models()`, or `package.module:builder` for a network of your own.
        options: keyword arguments of its builder, such as `backbone` and `pretrained`; and `bands`, which every network
            takes: how many its images have.

    Returns:
        nn.Module: called with two images BCHW, float32 normalised as `load_model` says, it returns `Outputs`.

    Raises:
        ConfigError: an unknown name or option, or a value out of range.
        MissingExtraError: the package with the pretrained weights is not installed.
        InputError: a weights file is missing or does not fit.

    Examples:
        >>> import semicdvl as cd
        >>> network = cd.create_model("siam_light", backbone="test_resnet", pretrained=False, decoder_channels=8)
        >>> sorted(network.heads)
        ['change', 'complementary', 'features', 'perturbed', 'segmentation', 'vlm_change']
    """
    model: nn.Module = build_model(name, options)
    return model


def build_model(name: str, options: Mapping[str, Any], *, origin: Origin = USER) -> Any:
    """Build a network and widen it to its bands; `origin` says whose name it is. Errors as `create_model`."""
    own, bands = dict(options), None
    if BANDS_OPTION in own and BANDS_OPTION not in list_options("model", name, MODELS, origin=origin):
        bands = own.pop(BANDS_OPTION)
    refuse_giant(name, own, lambda: build_part("model", name, MODELS, dict(own), origin=origin))
    network = build_part("model", name, MODELS, own, origin=origin)
    if bands is None:
        return network
    from semicdvl.models.common.bands import widen_input

    return widen_input(network, bands, name=name)
