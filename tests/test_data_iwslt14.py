"""The IWSLT14 recipe, on a miniature archive of the official layout."""

import io
import tarfile

import pytest

from hf_editable.data import clean_iwslt14, read_iwslt14
from hf_editable.data.iwslt14 import TEST_FILES, is_clean
from hf_editable.errors import EditableFileError, EditableValueError


HEAD = {
    "de": ["<url>http://x</url>", "<keywords>rede, meer</keywords>", "<speaker>Ada</speaker>", "<talkid>7</talkid>",
           "<title>Ada: Das Meer</title>", "<description>Ada redet über das Meer.</description>",
           '<translator href="http://x">Berta</translator>', '<reviewer href="http://x">Carl</reviewer>'],
    "en": ["<url>http://x</url>", "<keywords>talk, sea</keywords>", "<speaker>Ada</speaker>", "<talkid>7</talkid>",
           "<title>Ada: The sea</title>", "<description>Ada talks about the sea.</description>"],
}  # fmt: skip


def xml(lang, name):
    words = {"de": "Das ist’s", "en": "That’s it"}[lang]
    return [
        '<?xml version="1.0" encoding="UTF-8"?>', '<refset setid="iwslt2014">', "<title>No segment</title>",
        f'<seg id="1"> {words} {name}. </seg>', f'<seg id="12">{words}, "Nr." {name}!</seg>', "</refset>",
    ]  # fmt: skip


def members(sentences=50):
    files = {}
    for lang, word in (("de", "Satz"), ("en", "Sentence")):
        body = [f"{word} {number}." for number in range(3, sentences + 1)]
        files[f"train.tags.de-en.{lang}"] = HEAD[lang] + body
        for name in TEST_FILES:
            files[name.format(lang=lang)] = xml(lang, name.split(".")[2])
    return files


def pack(path, files, folder="de-en/"):
    with tarfile.open(path, "w:gz") as archive:
        for name, lines in files.items():
            content = "".join(line + "\n" for line in lines).encode()
            member = tarfile.TarInfo(folder + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_tags_are_dropped_or_stripped(tmp_path):
    data = read_iwslt14(pack(tmp_path / "de-en.tgz", members()))
    assert data["train"][:3] == {
        "source": ["Ada: Das Meer", "Ada redet über das Meer.", "Satz 3."],
        "target": ["Ada: The sea", "Ada talks about the sea.", "Sentence 3."],
    }
    assert len(data["train"]) == 50


def test_test_set_is_joined_in_the_order_of_the_recipe(tmp_path):
    data = read_iwslt14(pack(tmp_path / "de-en.tgz", members()))["test"]
    order = ["dev2010", "dev2012", "tst2010", "tst2011", "tst2012"]
    assert data["source"][::2] == [f"Das ist's {name}." for name in order]
    assert data["target"][1] == 'That\'s it, "Nr." dev2010!'


def test_every_23rd_clean_pair_goes_to_validation(tmp_path):
    files = members()
    # Dropped by the cleaning, so that it does not count.
    files["train.tags.de-en.de"].insert(8, "")
    files["train.tags.de-en.en"].insert(6, "A translation of nothing.")
    data = clean_iwslt14(read_iwslt14(pack(tmp_path / "de-en.tgz", files)))
    assert {split: len(rows) for split, rows in data.items()} == {"train": 48, "validation": 2, "test": 10}
    assert data["validation"][:] == {"source": ["satz 23.", "satz 46."], "target": ["sentence 23.", "sentence 46."]}
    assert data["train"]["source"][:3] == ["ada: das meer", "ada redet über das meer.", "satz 3."]
    assert data["test"]["target"][:2] == ["that's it dev2010.", 'that\'s it, "nr." dev2010!']


@pytest.mark.parametrize(
    "source, target, clean",
    [
        (175, 175, True), (175, 176, False), (176, 175, False), (0, 0, False), (0, 1, False),
        (2, 3, True), (3, 2, True), (100, 150, True), (100, 151, False), (151, 100, False), (1, 2, False),
    ],
)  # fmt: skip
def test_cleaning_limits(source, target, clean):
    assert is_clean(" ".join("a" * source), " ".join("b" * target)) is clean


def test_cleaning_drops_endless_tokens():
    assert is_clean("a" * 1000, "b")
    assert not is_clean("a", "b" * 1001)


@pytest.mark.parametrize(("normalize", "expected"), [(True, "say - now."), (False, "say – now.")])
def test_punctuation_is_normalised_unless_it_is_to_be_kept(tmp_path, normalize, expected):
    files = members()
    files["train.tags.de-en.de"][8], files["train.tags.de-en.en"][6] = "Sag – jetzt.", "Say – now."
    data = clean_iwslt14(read_iwslt14(pack(tmp_path / "de-en.tgz", files)), normalize=normalize)
    assert expected in data["train"]["target"]


def test_unpacked_folder_and_other_direction(tmp_path):
    archive = read_iwslt14(pack(tmp_path / "de-en.tgz", members()))
    (tmp_path / "de-en").mkdir()
    for name, lines in members().items():
        (tmp_path / "de-en" / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    for folder in (tmp_path, tmp_path / "de-en"):
        swapped = read_iwslt14(folder, "en", "de")
        assert swapped["train"]["source"][:] == archive["train"]["target"][:]
        assert swapped["test"]["target"][:] == archive["test"]["source"][:]


def test_paths_inside_the_archive_do_not_matter(tmp_path):
    (tmp_path / "in").mkdir()
    archive = pack(tmp_path / "in" / "de-en.tgz", members(), folder="../../")
    assert len(read_iwslt14(archive)["train"]) == 50
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "de-en.tgz"]


def test_missing_member_is_named(tmp_path):
    files = members()
    del files["IWSLT14.TEDX.dev2012.de-en.en.xml"]
    with pytest.raises(EditableFileError, match=r"lacks IWSLT14\.TEDX\.dev2012\.de-en\.en\.xml\. Download de-en\.tgz"):
        read_iwslt14(pack(tmp_path / "de-en.tgz", files))


@pytest.mark.parametrize("name", ["train.tags.de-en.en", "IWSLT14.TED.tst2011.de-en.en.xml"])
def test_sides_of_different_length(tmp_path, name):
    files = members()
    files[name].insert(-1, '<seg id="99"> one more </seg>')
    with pytest.raises(EditableValueError, match=r"has (50|2) German but (51|3) English sentences"):
        read_iwslt14(pack(tmp_path / "de-en.tgz", files))


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_truncated_archive(tmp_path, share):
    content = pack(tmp_path / "whole.tgz", members(5000)).read_bytes()
    (tmp_path / "de-en.tgz").write_bytes(content[: int(share * len(content))])
    with pytest.raises(EditableFileError, match=r"de-en\.tgz is empty, truncated or no .tgz archive .*wit3\.fbk\.eu"):
        read_iwslt14(tmp_path / "de-en.tgz")


def test_missing_archive(tmp_path):
    with pytest.raises(EditableFileError, match=r"No such file or folder: .*de-en\.tgz"):
        read_iwslt14(tmp_path / "de-en.tgz")


def test_other_languages(tmp_path):
    with pytest.raises(EditableValueError, match="not 'fr' to 'en'"):
        read_iwslt14(tmp_path, "fr", "en")
