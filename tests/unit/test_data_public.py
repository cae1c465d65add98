"""Public data sets, in small copies of the files that people download."""

from __future__ import annotations

import zipfile
from pathlib import Path

import polars as pl
import pytest

from recdistill.data.public import GENRES_100K, KINDS, import_public


def packed(tmp_path: Path, files: dict[str, str | bytes], name: str = "data.zip") -> Path:
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for inside, text in files.items():
            archive.writestr(inside, text)
    return tmp_path / name


def flags(*genres: str) -> str:
    return "|".join("1" if g in genres else "0" for g in GENRES_100K)


ML_100K = {
    "ml-100k/u.data": "196\t242\t3\t881250949\n186\t302\t5\t891717742\n",
    "ml-100k/u.user": "1|24|M|technician|85711\n2|53|F|other|T8H1N\n",
    "ml-100k/u.item": (
        f"1|Toy Story (1995)|01-Jan-1995||http://x|{flags('Animation', 'Comedy')}\n"
        f"2|Cit\xe9 (La) (1994)|||http://y|{flags('Sci-Fi')}\n"
    ).encode("latin-1"),
}
ML_1M = {
    "ml-1m/ratings.dat": "1::1193::5::978300760\n1::661::3::978302109\n",
    "ml-1m/users.dat": "1::F::1::10::48067\n2::M::56::16::70072\n",
    "ml-1m/movies.dat": "1193::One Flew (1975)::Drama\n661::James (1996)::Animation|Children's\n",
}


@pytest.mark.parametrize("unpacked", [False, True])
def test_movielens_100k(tmp_path, unpacked):
    source = packed(tmp_path, ML_100K)
    if unpacked:
        zipfile.ZipFile(source).extractall(tmp_path / "folder")
        source = tmp_path / "folder"
    facts = import_public("movielens-100k", source, tmp_path / "out")
    tables = {p.stem: pl.read_parquet(p) for p in (tmp_path / "out").iterdir()}
    assert tables["interactions"].rows() == [(196, 242, 3.0, 881250949), (186, 302, 5.0, 891717742)]
    assert tables["users"].rows() == [(1, 24, "M", "technician", "85711"), (2, 53, "F", "other", "T8H1N")]
    assert tables["items"].rows() == [
        (1, "Toy Story", "1995", "Animation Comedy"),
        (2, "Cit\xe9 (La)", "1994", "Sci-Fi"),
    ]
    assert tables["items"].columns == ["item_id", "movie_title", "release_year", "class"]
    assert facts["interactions"] == {"rows": 2, "columns": ["user_id", "item_id", "rating", "timestamp"]}


def test_movielens_1m(tmp_path):
    import_public("movielens-1m", packed(tmp_path, ML_1M), tmp_path / "out")
    tables = {p.stem: pl.read_parquet(p) for p in (tmp_path / "out").iterdir()}
    assert tables["interactions"].rows() == [(1, 1193, 5.0, 978300760), (1, 661, 3.0, 978302109)]
    assert tables["users"].rows() == [(1, 1, "F", "K-12 student", "48067"), (2, 56, "M", "self-employed", "70072")]
    assert tables["items"].rows()[1] == (661, "James", "1996", "Animation Children's")


def test_lightgcn_text_keeps_its_parts(tmp_path):
    home = tmp_path / "gowalla"
    home.mkdir()
    (home / "train.txt").write_text("0 5 7\n1 5\n2\n")
    (home / "test.txt").write_text("0 9 \n")
    import_public("lightgcn", home, tmp_path / "out")
    rows = pl.read_parquet(tmp_path / "out/interactions.parquet").rows()
    assert rows == [(0, 5, "train"), (0, 7, "train"), (1, 5, "train"), (0, 9, "test")]


def test_citeulike_does_not_take_the_count_for_an_item(tmp_path):
    (tmp_path / "users.dat").write_text("2 11 5\n0\n3 11 2 3\n")
    import_public("citeulike", tmp_path / "users.dat", tmp_path / "out")
    rows = pl.read_parquet(tmp_path / "out/interactions.parquet").rows()
    assert rows == [(0, 11), (0, 5), (2, 11), (2, 2), (2, 3)]


def test_two_imports_are_the_same_bytes(tmp_path):
    source = packed(tmp_path, ML_100K)
    for name in "ab":
        import_public("movielens-100k", source, tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_every_kind_has_a_test_here():
    assert set(KINDS) == {"movielens-100k", "movielens-1m", "lightgcn", "citeulike"}
