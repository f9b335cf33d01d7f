"""The greatest sizes that are read: what is larger is refused with its name, before memory is taken for it.

The limits are far above what the program writes and what its users have (the documentation lists them). They are there
for files that are damaged or made to exhaust a machine: a header of 93 GB, an archive that unpacks to a thousand times
its size, JSON in a million brackets.
"""

from __future__ import annotations

KIB, MIB, GIB = 2**10, 2**20, 2**30

MAX_TEXT_BYTES = 256 * MIB
"""Lists, tables, recipes, logs: text of any kind but JSON."""
MAX_TABLE_COLUMNS = 1_000
"""Columns of a table of pairs, of which three are used."""
MAX_RECIPE_BYTES = 16 * MIB
"""A recipe or a suite in TOML."""
MAX_JSON_BYTES = 512 * MIB
"""A JSON file; COCO instances of one large image take some tens of MiB."""
MAX_NESTING = 100
"""Levels of brackets in JSON and TOML; what the program writes has eight at most."""
MAX_WHOLE_NUMBER = 2**63 - 1
"""Of JSON and TOML: what a 64-bit integer holds. More digits break libraries in their own ways."""
MAX_SEED = 2**43
"""Greatest seed: times 1,000,003, plus the step, it is still a seed of torch (`training.loop`)."""
MAX_SHOWN_CHARACTERS = 120
"""Of a wrong value that an error message repeats."""

MAX_PATH_BYTES = 4_095
"""Length of a path; the same as Linux has."""
MAX_NAME_BYTES = 255
"""Length of one name in a path, as all common file systems have it."""

MAX_ARRAY_BYTES = 8 * GIB
"""An array of a .npy or .npz file, unpacked."""
MAX_ARRAY_AXES = 8
MAX_ARCHIVE_MEMBERS = 10_000
"""Arrays of an .npz file, or parts of a checkpoint of torch."""
MAX_ARCHIVE_RATIO = 1_100
"""Unpacked bytes per packed byte of a member of an archive: DEFLATE reaches 1,032, for zeros."""
MAX_WEIGHTS_BYTES = 64 * GIB
"""A file of tensors."""
MAX_TENSORS = 200_000
"""Tensors of a file."""
MAX_TENSOR_AXES = 32

MAX_GRAPH_PARTS = 20_000
"""Nodes, tensors and values in the graph of an ONNX file: of the networks that can be exported, ChangeFormer has most,
5,500. ONNX Runtime takes half a minute to open 100,000."""
MAX_GRAPH_NESTING = 8
"""Graphs within the nodes of graphs of an ONNX file."""
MIN_NETWORK_BYTES = 2 * GIB
"""Memory that an ONNX network may take for any tile, and besides its file while it is opened."""
MAX_NETWORK_BYTES_PER_PX = 48 * KIB
"""Further memory per pixel of a tile: STANet takes 45 KiB at 512 px, ChangeFormer 6."""

MAX_NETWORK_PARAMETERS = 4_000_000_000
"""Numbers of a network that a recipe or a stored run describes (16 GB in float32)."""
MAX_NETWORK_OPTION = 16_384
"""A whole number among the options of a network: channels, layers, heads. The widest known encoders have 8,192."""
MAX_WORDS = 254
"""Prompts of a vision-language model: a pixel's class is 8 bits, of which 255 means unknown."""
MAX_WORD_CHARACTERS = 1_000
"""Of one prompt."""

MAX_PICTURE_PX = 2**28
"""Pixels of a label picture that is decoded as a whole: 16,384 x 16,384."""
MAX_COORDINATE = 1e15
"""Greatest coordinate of a vector, in any unit: no map has it, and areas beyond it overflow."""
MIN_GSD_M, MAX_GSD_M = 0.01, 1_000_000
"""Size of a pixel in metres: a few metres on the ground, in pixels of millimetres, take hours for a tile."""
MAX_COMPANION_TEXT_BYTES = 256 * MIB
"""A text beside an image or a layer (world file, projection, metadata), which GDAL reads as a whole."""
