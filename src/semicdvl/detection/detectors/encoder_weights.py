"""Check that an encoder's weights are available before the hub's client retries many times."""

from __future__ import annotations

from semicdvl.errors import InputError

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of the weight files in the repositories of timm."""


def require_encoder_weights(name: str, *, method: str, chosen: str | None = None) -> None:
    """Make sure that the pretrained weights of a timm network are here or can be downloaded.

    Names that timm does not know, or whose weights come from elsewhere, are checked when they are built.

    Args:
        name: of the network.
        method: the method that needs it, for the remedy.
        chosen: the network's name where it is not the method's default: the remedy then repeats it.

    Raises:
        InputError: they were never downloaded, and the model hub can't be reached.
    """
    import timm
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    from semicdvl.models.encoders.timm import LITE_PACKAGES
    from semicdvl.vlms.weights import HUB_TIMEOUT_S

    settings = timm.get_pretrained_cfg(name) if name not in LITE_PACKAGES and timm.is_model(name) else None
    repository = None if settings is None else settings.hf_hub_id
    if not repository or any(isinstance(try_to_load_from_cache(repository, file), str) for file in WEIGHT_FILES):
        return
    local = repository.rpartition("/")[2]
    own = f"--method-set backbone={chosen} " if chosen else ""
    remedy = (
        f"With internet access, run `hf download {repository} {WEIGHT_FILES[0]} --local-dir {local}`, copy "
        f"the folder here and give --method {method} {own}--method-set weights={local}/{WEIGHT_FILES[0]}. Or take a "
        "network whose weights come with semicdvl[offline]: --method-set backbone=efficientnet_lite0"
    )
    if constants.HF_HUB_OFFLINE:
        raise InputError(
            name, "its weights were not downloaded before, and HF_HUB_OFFLINE forbids downloading them", remedy
        )
    try:
        HfApi().model_info(repository, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # any error of the connection
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        problem = f"its weights are not on this machine, and the model hub can't be reached ({reason})"
        raise InputError(name, problem, remedy) from error
