"""Headers of JPEGs that DALI reads and those that only lenient decoders do."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from has_dali.pipelines.jpeg_markers import has_clean_header, has_end


def _jpeg(**options: object) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"optimize": True}, {"comment": b"x" * 9000}, {"icc_profile": bytes(90000)}]
)
def test_written_files_are_clean(options: dict[str, object]) -> None:
    content = _jpeg(**options)
    assert has_clean_header(content) and has_end(content)
    assert not has_end(content[:-1]) and not has_end(content + b"\n")


def test_stray_bytes_between_segments_are_found() -> None:
    content = _jpeg()
    first = 4 + int.from_bytes(content[4:6], "big")  # where the second segment starts
    for stray in (b"\0", b"junk", b"\xff\x00", b"\xff\xd9"):
        assert not has_clean_header(content[:first] + stray + content[first:])
    assert has_clean_header(content[:first] + b"\xff\xff" + content[first:])  # padding is allowed
    for end in (0, 1, 2, 10, first, first + 3):
        assert not has_clean_header(content[:end])
    assert not has_clean_header(b"\xff\xd9" + content[2:])


def test_real_headers_that_dali_refuses(data_root: Path) -> None:
    folder = data_root / "odd-jpegs"
    dirty = {path.name for path in folder.glob("*.jpg") if not has_clean_header(path.read_bytes())}
    no_jpegs = {"bitflip_soi.jpg", "text_named.jpg", "zero_bytes.jpg"}
    assert dirty == {"truncated_app14.jpg", "junk_jpeg_header.jpg", "photoshop-200dpi-broken.jpg"} | no_jpegs
