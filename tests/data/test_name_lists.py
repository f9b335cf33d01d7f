"""Lists of names as people save them: blanks, other encodings, Windows line ends."""

import pytest

from semicdvl.data.name_lists import read_name_list
from semicdvl.detection.batch.pairs_table import read_pairs
from semicdvl.errors import InputError

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_names_with_blanks_in_any_encoding(tmp_path, encoding, line_end):
    path = tmp_path / "train.txt"
    lines = ["tile 01.png", "A/Häuser 02.PNG label/Häuser 02.PNG", "", "train_3.png B/train_3.png", "plain other"]
    path.write_bytes(line_end.join(lines).encode(encoding))
    assert read_name_list(path) == ("tile 01", "Häuser 02", "train_3", "plain")


def test_whole_lines_count_where_first_words_are_the_same(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("tile 01\ntile 02\n")
    assert read_name_list(path) == ("tile 01", "tile 02")


def test_other_encoding_is_named(tmp_path):
    path = tmp_path / "train.txt"
    path.write_bytes("Häuser.png".encode("latin-1"))
    with pytest.raises(InputError, match=r"is not text in UTF-8 \(byte 2.*Latin-1"):
        read_name_list(path)
    path.write_bytes("a.png\nb.png\n".encode("utf-16-le"))
    with pytest.raises(InputError, match="UTF-16 without a byte order mark"):
        read_name_list(path)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_table_of_pairs_in_any_encoding(tmp_path, encoding):
    for name in ("tile 01 a.tif", "tile 01 b.tif"):
        (tmp_path / name).touch()
    path = tmp_path / "pairs.csv"
    path.write_bytes("before,after\r\ntile 01 a.tif,tile 01 b.tif\r\n".encode(encoding))
    assert [pair.before for pair in read_pairs(path).pairs] == [str(tmp_path / "tile 01 a.tif")]
