"""``pack``: any source of images into tar shards with an index, resized once instead of in every epoch.

Images are encoded by threads (Pillow lets go of Python's lock) and written in the order of their sample ids by one
writer, so the shards are the same whatever the number of threads, and a sample keeps its id. A finished shard is named
and entered in ``pack.json`` before the next one begins; ``index.npz`` comes last.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from has_dali.console import atomic_file, output_folder
from has_dali.kernels.threads import available_cores
from has_dali.pipelines.pack_images import Form
from has_dali.pipelines.pack_index import build_index
from has_dali.pipelines.pack_manifest import COPY_NAME, Manifest, Skipped, locked, read_manifest, remove_manifest
from has_dali.pipelines.pack_run import PackRun
from has_dali.pipelines.pack_shards import SHARD_PREFIX, sync_folder
from has_dali.pipelines.sampler import at_least
from has_dali.pipelines.shard_index import INDEX_NAME, MANIFEST_NAME, write_index

SHARD_BYTES = 256_000_000
SKIPPED_NAME = "skipped.csv"
_AHEAD = 4  # images under way per thread
_LEFTOVERS = (
    f".{SHARD_PREFIX}*.tar.part",
    *(f".{name}.*.part" for name in (MANIFEST_NAME, COPY_NAME, INDEX_NAME, SKIPPED_NAME)),
)

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackReport:
    """What a packed folder holds.

    Args:
        folder: where it is.
        images: packed ones.
        skipped: broken ones that were left out.
        shards: number of files.
        bytes: in all shards.
        kept: shards that an earlier run had finished.
        seconds: this run took.
    """

    folder: str
    images: int
    skipped: tuple[Skipped, ...]
    shards: int
    bytes: int
    kept: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def pack(
    source: Any,
    out: str | os.PathLike[str],
    *,
    short_side: int = 256,
    quality: int = 90,
    raw: bool = False,
    shard_bytes: int = SHARD_BYTES,
    jobs: int | None = None,
    on_error: str = "raise",
    advance: Callable[[int], None] = lambda images: None,
) -> PackReport:
    """Write all images of a source into tar shards in the folder ``out``.

    Members are ``KEY.jpg``, or with ``raw`` ``KEY.npy`` (uint8, height x width x 3), and ``KEY.cls`` with the label in
    ASCII digits where there is one; KEY is the sample id. Run again after an interruption, it keeps the shards that
    are finished: those that are damaged or missing, and those of image files of another size or time than then, are
    made again, with the same samples. Of images in shards and records a change is not noticed.

    Args:
        source: a source, as ``open_data`` gives it.
        out: a folder that is new, empty, or of an earlier run with the same source and settings.
        short_side: larger images are shrunk to it, EXIF orientation applied; smaller ones keep their size. 0: nothing
            is shrunk, and files that the loaders read are copied byte for byte, with their own extension.
        quality: of JPEGs, 1 to 95.
        raw: store pixels, for loading without decoding.
        shard_bytes: size of a shard, at most, unless a single image is larger.
        jobs: threads; the usable cores by default.
        on_error: "raise": a broken image is an error; "skip": it is left out, and listed in ``skipped.csv``.
        advance: called with the number of images just finished.

    Raises:
        ValueError: a broken image, a setting out of range, or a folder of other shards; names it.
        OSError: the disk is full, or fails, or a shard cannot be read. Finished shards are kept.
    """
    longest = 65500  # side of a JPEG
    form = Form(at_least("short_side", short_side, 0, longest), at_least("quality", quality, 1, 95), bool(raw))
    at_least("shard_bytes", shard_bytes, 1)
    threads = available_cores() if jobs is None else at_least("jobs", jobs, 1)
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error={on_error!r}: expected 'raise' or 'skip'")
    settings = {**asdict(form), "shard_bytes": shard_bytes, "source": source.fingerprint()}
    start = time.perf_counter()
    with output_folder(Path(out)) as folder, locked(folder):
        manifest = _begun(folder, settings)
        skipping = on_error == "skip"
        with ThreadPoolExecutor(threads, thread_name_prefix="has_dali_pack") as pool, _begun_for_good(folder, manifest):
            run = PackRun(source, form, folder, manifest, skipping=skipping, pool=pool, ahead=_AHEAD * threads)
            faulty = run.faulty(advance)
            kept = len(manifest.shards) - len(faulty)
            if not skipping:
                _refuse_skipped(manifest, faulty)
            run.check_space(faulty)
            for number, fault in faulty.items():
                _LOG.warning("%s: it is made again", fault)
                run.write_again(number, advance)
            run.write(manifest.end, shard_bytes, advance)
            if not manifest.shards:
                raise ValueError(f"{folder}: no image of the source can be decoded: nothing is packed")
            names = {packed.shard.name for packed in manifest.shards}
            for path in folder.glob(f"{SHARD_PREFIX}*.tar"):
                if path.name not in names:  # finished by a run that was killed before it could say so
                    path.unlink()
            _write_skipped(folder, manifest.skipped)
            write_index(folder, build_index(folder, manifest, source, "raw" if raw else "jpeg"))
            sync_folder(folder)
    size = sum(packed.shard.size for packed in manifest.shards)
    seconds = time.perf_counter() - start
    images = len(source) - len(manifest.skipped)
    return PackReport(os.fspath(out), images, manifest.skipped, len(manifest.shards), size, kept, seconds)


def _begun(folder: Path, settings: dict[str, Any]) -> Manifest:
    """The state an earlier run left; a folder of anything else is refused.

    Nobody else packs into the folder now, so unfinished files are those of a run that was killed.
    """
    for pattern in _LEFTOVERS:
        for path in folder.glob(pattern):
            path.unlink()
    manifest = read_manifest(folder)
    if manifest is None:
        strange = sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(".tar"))
        if strange or (folder / INDEX_NAME).exists():
            raise ValueError(
                f"{folder}: holds shards of another origin ({(strange or [INDEX_NAME])[0]}); choose a new folder"
            )
        return Manifest(settings)
    if not manifest.shards:  # killed before the first was finished
        return Manifest(settings)
    for name, value in settings.items():
        before = manifest.settings.get(name)
        if before != value:
            reason = "holds shards of another source, or it has changed" if name == "source" else "was begun"
            raise ValueError(
                f"{folder}: {reason} (with {name}={before}, now {value}); use the same, or choose a new folder"
            )
    return manifest


def _refuse_skipped(manifest: Manifest, faulty: Collection[int]) -> None:
    """Images that were left out cannot be asked for again, but where their shard is made again anyway."""
    for number, packed in enumerate(manifest.shards):
        if packed.skipped and number not in faulty:
            name = packed.skipped[0].name
            raise ValueError(f"{name}: was left out by an earlier run; take --on-error skip, or a new folder")


@contextlib.contextmanager
def _begun_for_good(folder: Path, manifest: Manifest) -> Iterator[None]:
    """The folder is marked as this work's before the first shard; the mark goes again where an error leaves none."""
    try:
        manifest.write(folder)
        yield
    except BaseException as error:
        if not manifest.shards:  # a list that never gets shorter: nothing was finished, by this run or an earlier one
            remove_manifest(folder)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(
                f"{folder}: the disk is full; make room and run the same command again: finished shards are kept"
            ) from error
        raise


def _write_skipped(folder: Path, skipped: tuple[Skipped, ...]) -> None:
    import csv
    import io

    if not skipped:
        (folder / SKIPPED_NAME).unlink(missing_ok=True)
        return
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["id", "name", "reason"])
    rows.writerows([one.sample_id, one.name, one.reason] for one in skipped)
    with atomic_file(folder / SKIPPED_NAME) as file:
        file.write(text.getvalue().encode(errors="surrogateescape"))
