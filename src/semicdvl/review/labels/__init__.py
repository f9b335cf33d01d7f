"""Label patches by painting: where they come from, what is proposed, and the training set that they become.

sources.py      patches of a result (the boxes of `suggest`) or of a folder of pairs
proposals.py    what the mask begins with: the change map, or a vision-language model's answer
superpixels.py  segments of one date, for the brush that takes a whole roof
training.py     lists, recipe and the command that trains on what is labelled
"""
