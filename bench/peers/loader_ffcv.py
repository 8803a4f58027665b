"""FFCV: threads that decode from one file of its own format, which is made first.

Its JPEG mode encodes every image anew, here at quality 90 as its ImageNet recipe does, which makes decoding cheaper
than from most original files; the time and the size of the conversion are not part of the figures.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from has_dali.bench import timing
from has_dali.bench.harness import Unavailable
from has_dali.bench.peers.loader_job import AREA, ASPECT, Job
from has_dali.bench.peers.loader_torch import hidden_batch
from has_dali.kernels.contract import IMAGENET_MEAN, IMAGENET_STD
from has_dali.kernels.threads import available_cores
from has_dali.pipelines.pil import opened_image

_REMEDY = (
    "ffcv does not import ({}); pip install ffcv needs a C++ compiler, pkg-config, OpenCV and libjpeg-turbo with their"
    " headers (Debian: libopencv-dev, libturbojpeg0-dev)"
)
_QUALITY = 90
_COPIED = 8  # at least as many as the equality check looks at


class _Pictures:
    """Decoded files for FFCV's writer."""

    def __init__(self, files: tuple[str, ...], labels: tuple[int, ...]) -> None:
        self.files, self.labels = files, labels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.uint8], int]:
        with opened_image(self.files[index]) as image:
            return np.asarray(image.convert("RGB")), self.labels[index]


@contextmanager
def loader(job: Job) -> Iterator[Iterator[Any]]:
    """FFCV's fastest order of operations on a CPU: mirror, normalise and change the layout in its compiled code."""
    try:
        from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
        from ffcv.loader import Loader, OrderOption
        from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage
    except (ImportError, OSError) as error:
        raise Unavailable(_REMEDY.format(str(error).partition("\n")[0])) from None
    distinct = dict(zip(job.files, job.labels, strict=True))  # a file that is listed again is converted once
    numbers = {file: number for number, file in enumerate(distinct)}
    image = [
        RandomResizedCropRGBImageDecoder((job.size, job.size), scale=AREA, ratio=ASPECT),
        RandomHorizontalFlip(),
        NormalizeImage(np.array(IMAGENET_MEAN), np.array(IMAGENET_STD), np.float32),
        ToTensor(),
        ToTorchImage(channels_last=False, convert_back_int16=False),
    ]
    made = Loader(
        str(_converted(tuple(distinct), tuple(distinct.values())) / "images.beton"),
        indices=[numbers[file] for file in job.files],
        batch_size=job.batch_size,
        num_workers=min(job.threads, available_cores()),  # it refuses more; ``LoaderPeer.threads`` says so
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        seed=0,
        batches_ahead=job.prefetch + 1,  # its default, 3, for the usual 2
        pipelines={"image": image, "label": [IntDecoder(), ToTensor(), Squeeze()]},
    )

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        for number, (images, labels) in enumerate(timing.endless(made)):
            # FFCV fills its buffers again later; whoever keeps a batch, as the equality check does, must copy it.
            own = images.clone() if number < _COPIED else images
            yield {"image": hidden_batch(own, job.policy), "label": labels.long()}

    yield batches()


class _Folder:
    """A temporary folder that lives as long as this process holds it."""

    def __init__(self) -> None:
        self.temporary = tempfile.TemporaryDirectory(prefix="has_dali_ffcv_")
        self.path = Path(self.temporary.name)


@lru_cache(maxsize=1)
def _folder(files: tuple[str, ...], labels: tuple[int, ...]) -> _Folder:
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    folder = _Folder()
    fields = {"image": RGBImageField(write_mode="jpg", jpeg_quality=_QUALITY), "label": IntField()}
    writer = DatasetWriter(str(folder.path / "images.beton"), fields, num_workers=1)
    writer.from_indexed_dataset(_Pictures(files, labels), shuffle_indices=False)
    return folder


def _converted(files: tuple[str, ...], labels: tuple[int, ...]) -> Path:
    """The folder of ``images.beton``, made once for the files of a job."""
    return _folder(files, labels).path
