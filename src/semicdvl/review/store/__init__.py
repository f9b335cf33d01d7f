"""The decisions of a review in one SQLite file: every one is on disk before the next object is shown.

    OUT/review.sqlite
        meta      of which map it is
        changes   one row per object, as it is now and as the detection found it
        log       what was done, with the rows before it, so that it can be undone
        places    the random sample of places, with what a person said of them

Two windows, people or processes may write: each names the version of the object that it saw, and a write of an older
version is refused (`Conflict`).

database.py     reads and writes it
inspection.py   looks at a file before it is opened for writing
schema.py       its tables, and what a file must hold to be a review
rows.py         an object of the map, and its row
file_system.py  tells whether the file lies on a network
"""

from semicdvl.review.store.database import (
    REVIEW_FILE,
    REVIEW_FORMAT,
    Author,
    Conflict,
    NoSuchChange,
    ReviewStore,
    now,
    read_facts,
)
from semicdvl.review.store.file_system import is_on_network
from semicdvl.review.store.rows import STATES, Change

__all__ = [
    "REVIEW_FILE",
    "REVIEW_FORMAT",
    "STATES",
    "Author",
    "Change",
    "Conflict",
    "NoSuchChange",
    "ReviewStore",
    "is_on_network",
    "now",
    "read_facts",
]
