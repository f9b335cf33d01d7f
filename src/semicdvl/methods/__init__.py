"""Methods: how a batch becomes a loss. One file per paper, one frozen dataclass of settings per method.

`step(model, teacher, labelled, unlabelled, progress)` returns named loss terms, already weighted: their sum is the loss
and the dict is the log. A method is handed a network and never imports one.
"""

METHODS: dict[str, str] = {
    "supervised": "semicdvl.methods.supervised:Supervised",
    "fixmatch": "semicdvl.methods.fixmatch:FixMatch",
    "semicd_vl": "semicdvl.methods.semicd_vl:SemiCDVL",
}
"""Name -> class. One more method: one more file and one line here."""
