"""Methods: how a batch becomes a loss. One file per paper, one frozen dataclass of settings per method.

`step(model, teacher, labelled, unlabelled, progress)` returns named loss terms, already weighted: their sum is the loss
and the dict is the log. A method is handed a network and never imports one.
"""

METHODS: dict[str, str] = {
    "supervised": "semicdvl.methods.supervised:Supervised",
    "fixmatch": "semicdvl.methods.fixmatch:FixMatch",
    "semicd_vl": "semicdvl.methods.semicd_vl:SemiCDVL",
    "unimatch": "semicdvl.methods.unimatch:UniMatch",
    "semicd": "semicdvl.methods.semicd:SemiCD",
    "semicdnet": "semicdvl.methods.semicdnet:SemiCDNet",
    "advent": "semicdvl.methods.advent:Advent",
    "s4gan": "semicdvl.methods.s4gan:S4GAN",
    "semivl": "semicdvl.methods.semivl:SemiVL",
    "mean_teacher": "semicdvl.methods.mean_teacher:MeanTeacher",
}
"""Name -> class. One more method: one more file and one line here."""
