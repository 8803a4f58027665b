"""The image files that loaders are measured on: a folder of the user's, or the embedded corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from has_dali.bench.data_facts import data_facts
from has_dali.bench.peers.loader_job import some_of
from has_dali.console import Terminal
from has_dali.pipelines import corpus
from has_dali.pipelines.sources import FileSource, folder_source, open_source

EMBEDDED = "embedded corpus"


def embedded_source(terminal: Terminal) -> FileSource:
    """The embedded corpus, made when it is missing."""
    with terminal.progress("making the embedded corpus", corpus.corpus_size()) as advance:
        folder = corpus.ensure_corpus(advance=advance)
    return folder_source(folder)


def image_files(data: str | None, terminal: Terminal) -> tuple[FileSource, dict[str, Any]]:
    """Files, at most a few thousand of them, and their fingerprint.

    Args:
        data: folder with one folder of images per class; None: the embedded corpus.

    Raises:
        OSError, ValueError: the folder is missing, or holds no image that can be read.
    """
    source = embedded_source(terminal) if data is None else some_of(open_source(data))
    return source, data_facts(source, EMBEDDED if data is None else Path(data).name)
