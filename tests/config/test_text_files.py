from __future__ import annotations

from pathlib import Path

import pytest

from adanat_rl.config.errors import UserError
from adanat_rl.config.text_files import decode_text, printable, read_text


def refused(path: Path, **limits: int) -> str:
    with pytest.raises(UserError) as caught:
        read_text(path, "data.class_names", **limits)
    message = str(caught.value)
    assert message.startswith("data.class_names: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_mark_and_other_line_ends_make_no_difference(tmp_path: Path, mark: bytes, end: bytes) -> None:
    file = tmp_path / "names"
    file.write_bytes(mark + "Käse".encode() + end + b"b" + end)
    assert read_text(file, "x") == "Käse\nb\n"


def test_the_first_bad_byte_is_named(tmp_path: Path) -> None:
    file = tmp_path / "names"
    file.write_bytes(b"good\r\nK\xe4se\r\n\xff")
    assert "no UTF-8 text: byte 0xe4 in line 2 (byte 8 of the file)" in refused(file)
    file.write_bytes(b"a\nb\0c")
    assert "byte 0x00 in line 2" in refused(file)


def test_other_encodings_are_named(tmp_path: Path) -> None:
    file = tmp_path / "names"
    for encoding in ("utf-16", "utf-32"):
        file.write_bytes("ab".encode(encoding))
        assert "UTF-16 or UTF-32, expected UTF-8" in refused(file)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "nowhere")
    assert "directory" in refused(tmp_path)
    assert "too long" in refused(tmp_path / ("x" * 300))
    assert "no file name" in refused(tmp_path / "a\0b")
    assert "Not a directory" in refused(Path(__file__) / "x")


def test_no_more_is_read_than_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "names"
    file.write_text("x" * 10)
    assert read_text(file, "x", max_bytes=10) == "x" * 10
    assert "larger than 9 bytes" in refused(file, max_bytes=9)
    assert "larger than 1,000 bytes" in refused(Path("/dev/zero"), max_bytes=1000)


def test_bytes_from_elsewhere() -> None:
    assert decode_text(b"\xef\xbb\xbfa\r\n", "0001.txt in a.tar") == "a\n"
    with pytest.raises(UserError, match=r"^0001.txt in a.tar is no UTF-8"):
        decode_text(b"\xff", "0001.txt in a.tar")


def test_names_are_printed_on_one_line() -> None:
    assert printable("Käse") == "Käse"
    assert printable("a\nb") == "a\\nb"
    assert printable(Path("a\udce4b")) == "a\\udce4b"
