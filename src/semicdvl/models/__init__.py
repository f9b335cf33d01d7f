"""Networks: two dates in, `Outputs` out.

A builder takes its settings by keyword and returns an `nn.Module` with

    heads       which of `types.HEADS` it has
    encoder     the part that starts from pretrained weights (its own learning rate); everything else is "head"
    forward(t1_BCHW, t2_BCHW, *, heads=None) -> Outputs
"""

MODELS: dict[str, str] = {
    "siam_light": "semicdvl.models.siam_light:build",
}
"""Name -> builder. One more network: one more file and one line here."""
