"""WebDataset's tar shards: images by their place in the archive, without unpacking."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Sequence
from functools import partial

from has_dali.pipelines.shard_index import INDEX_NAME, MANIFEST_NAME, ShardIndex, read_index
from has_dali.pipelines.shard_names import PathLike, shard_files
from has_dali.pipelines.span_index import FileSpans, SpanBuilder, indexed_source
from has_dali.pipelines.spans import SpanSource
from has_dali.pipelines.tar_members import Member, tar_members

_LOG = logging.getLogger(__name__)

TAR_IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "ppm")
_LONGEST_LABEL = 1 << 20  # bytes of a .cls or .json member


def tar_source(data: PathLike | Sequence[PathLike], image: str | None = None) -> SpanSource:
    """The images of tar shards, in the order of shards and members.

    Members that follow one another and have the same name up to the first dot of its last part (the key) make up a
    sample, as WebDataset groups them: one image (jpg, jpeg, png, webp, bmp or ppm) and its label, a number in ``.cls``
    or "label" or "cls" in ``.json``; other members are passed over. A set where no sample has a label is read without.
    The index that ``has-dali pack`` wrote is taken where it fits; else the shards are scanned once.

    Args:
        data: a folder of .tar files, one file, a pattern (``train-{000..099}.tar``, ``train-*.tar``), or a list.
        image: the extension of the images, where samples hold several; any of the above by default.

    Raises:
        OSError: a shard is missing or unreadable.
        ValueError: a shard is compressed, cut short or damaged; a sample has no image, no label or several, or its
            key comes twice in a shard; names shard and member.
    """
    packed = packed_index(data) if image is None else None
    return scanned_source(data, image) if packed is None else packed_source(*packed)


def packed_source(folder: str, index: ShardIndex) -> SpanSource:
    """The encoded images of what ``packed_index`` gave.

    Raises:
        ValueError: its images are raw.
    """
    if index.kind == "raw":
        raise ValueError(f"data: {folder}: shards of raw images, not of encoded ones; open them with open_data")
    return SpanSource(
        [os.path.join(folder, name) for name in index.files],
        index.sizes,
        index.file_of,
        index.offsets,
        index.lengths,
        index.labels,
        index.classes,
        names=index.keys,
        digests=index.sha256,
    )


def scanned_source(data: PathLike | Sequence[PathLike], image: str | None = None) -> SpanSource:
    """``tar_source`` from the shards alone, whatever index lies beside them."""
    images = TAR_IMAGES if image is None else (image.lower().lstrip("."),)
    return indexed_source("tar", shard_files(data, "tar"), partial(_scan, images=images), options=" ".join(images))


def packed_index(data: PathLike | Sequence[PathLike]) -> tuple[str, ShardIndex] | None:
    """The folder and the index, of just these shards, that ``has-dali pack`` wrote; None where none fits them.

    Raises:
        FileNotFoundError: ``data`` is a folder and lacks a shard that its index lists.
        ValueError: the index is damaged, or missing because packing was interrupted; or raw shards do not fit it:
            nothing else says where their images lie.
    """
    files = shard_files(data, "tar")
    folder = os.path.dirname(files[0])
    if any(os.path.dirname(file) != folder for file in files):
        return None
    if not os.path.exists(os.path.join(folder, INDEX_NAME)):
        if os.path.exists(os.path.join(folder, MANIFEST_NAME)):
            raise ValueError(
                f"data: {folder}: packing was not finished; run has-dali pack again, it keeps what is done"
            )
        return None
    index = read_index(folder)
    numbers = {name: number for number, name in enumerate(index.files)}
    names = [os.path.basename(file) for file in files]
    absent = set(index.files) - set(names)
    if absent and isinstance(data, (str, os.PathLike)) and os.path.isdir(data):
        raise FileNotFoundError(
            f"data: {os.path.join(folder, min(absent))}: the shard is missing ({INDEX_NAME} lists it);"
            f" restore it, or delete {INDEX_NAME} to go on with the others"
        )
    unlike = next((file for file, name in zip(files, names, strict=True) if name not in numbers), None)
    if unlike is None:
        chosen = index.of_files([numbers[name] for name in names])
        unlike = chosen.misfit(folder, name_only=True)
        if unlike is None:
            return folder, chosen
    if not os.path.exists(unlike):
        raise FileNotFoundError(f"data: {unlike}: no such file")
    problem = f"{unlike}: the shard is not as {INDEX_NAME} beside it says"
    if index.kind == "raw":
        raise ValueError(f"data: {problem}; restore the shard, or pack again")
    _LOG.warning("%s: the shards are scanned instead; pack again, or delete the index", problem)
    return None


def _scan(path: str, size: int, images: Sequence[str]) -> FileSpans:
    """The samples of one shard."""
    found, keys = SpanBuilder(), set()
    with open(path, "rb", buffering=0) as file:
        key, parts = b"", dict[str, Member]()
        for member in tar_members(file.fileno(), path, size):
            base, extension = key_and_extension(member.name)
            if not base:
                continue
            if base != key:
                if parts:
                    _add(found, file.fileno(), path, key, parts, images)
                if base in keys:
                    raise ValueError(
                        f"{path}: {_text(member.name)}: the key {_text(base)!r} comes again after other samples;"
                        " keys must differ, and the files of a sample follow one another (tar --sort=name)"
                    )
                keys.add(base)
                key, parts = base, {}
            if extension in parts:
                raise ValueError(
                    f"{path}: {_text(member.name)}: two files with the key {_text(base)!r} and the extension"
                    f" {extension!r}; rename or remove one"
                )
            parts[extension] = member
        if parts:
            _add(found, file.fileno(), path, key, parts, images)
    return found.spans()


def key_and_extension(name: bytes) -> tuple[bytes, str]:
    """A member's name up to the first dot of its last part, and the rest in lower case.

    The key is empty for members that make up no sample: without an extension, hidden, or WebDataset's own notes
    (``__name__``).
    """
    folder, slash, base = name.rpartition(b"/")
    stem, dot, extension = base.partition(b".")
    if not stem or not dot or re.match(rb"__[^/]*__($|/)", name):
        return b"", ""
    return folder + slash + stem, os.fsdecode(extension).lower()


def _add(
    found: SpanBuilder, descriptor: int, path: str, key: bytes, parts: dict[str, Member], images: Sequence[str]
) -> None:
    here = [extension for extension in images if extension in parts]
    if len(here) != 1:
        names = ", ".join(_text(member.name) for member in parts.values())
        problem = f"has several images ({names}); name one: tar_source(data, image={here[0]!r})" if here else ""
        raise ValueError(
            f"{path}: sample {_text(key)!r} "
            + (problem or f"has no image ({names}); expected one of {' '.join(images)} beside its other files")
        )
    member = parts[here[0]]
    if not member.size:
        raise ValueError(f"{path}: {_text(member.name)}: the image is empty; remove the sample")
    found.add(member.offset, member.size, _label(descriptor, path, parts), member.name)


def _label(descriptor: int, path: str, parts: dict[str, Member]) -> int:
    """The label of a sample, or -1 where it has none."""
    member = parts.get("cls") or parts.get("json")
    if member is None:
        return -1
    if member.size > _LONGEST_LABEL:
        raise ValueError(f"{path}: {_text(member.name)}: {member.size} bytes are no label; expected a number")
    content = os.pread(descriptor, member.size, member.offset)
    if "cls" in parts:
        value: object = int(content) if re.fullmatch(rb"\s*-?\d{1,18}\s*", content) else content
    else:
        try:
            fields = json.loads(content)
        except ValueError as error:
            raise ValueError(f"{path}: {_text(member.name)}: no JSON ({error}); repair it") from None
        fields = fields if isinstance(fields, dict) else {}
        if "label" not in fields and "cls" not in fields:
            return -1
        value = fields.get("label", fields.get("cls"))
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        shown = _text(value[:40]) if isinstance(value, bytes) else value
        raise ValueError(f"{path}: {_text(member.name)}: label {shown!r}; expected an integer from 0 on")
    return value


def _text(name: bytes) -> str:
    return os.fsdecode(name)
