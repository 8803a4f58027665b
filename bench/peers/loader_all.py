"""All image loaders that are compared, ours first."""

from __future__ import annotations

from has_dali.bench.peers import loader_dali, loader_ffcv, loader_has_dali, loader_spdl, loader_timm, loader_torch
from has_dali.bench.peers.loader_job import LoaderPeer

OURS, PLAIN = "has_dali", "has_dali_plain"
READ, CEILING = "read_ceiling", "decode_ceiling"
DALI, DALI_ERASE = "dali", "dali_erase"
TORCHVISION, TENSORS = "torchvision_pil", "torchvision_v2"
TIMM, SPDL, FFCV = "timm", "spdl", "ffcv"

_LOADERS = (
    LoaderPeer(OURS, "has_dali, with HaS", loader_has_dali.with_has, hides=True, kind="ours"),
    # The same number of threads: what hiding costs is asked, not what the threads give.
    LoaderPeer(PLAIN, "has_dali, without HaS", loader_has_dali.without_has, kind="ours", threads_of=OURS),
    LoaderPeer(DALI, "DALI's own operators, without HaS", loader_dali.operators),
    LoaderPeer(DALI_ERASE, "DALI's own operators, HaS by fn.erase", loader_dali.operators_with_erase, hides=True),
    # Worker processes go on decoding ahead while others are measured: closed after each turn.
    LoaderPeer(
        TORCHVISION, "torchvision DataLoader, Pillow, Python HaS", loader_torch.pil_loader, hides=True, stays_open=False
    ),
    LoaderPeer(
        TENSORS, "torchvision v2, own decoder, Python HaS", loader_torch.tensor_loader, hides=True, stays_open=False
    ),
    LoaderPeer(
        TIMM,
        "timm create_loader, Python HaS on its batch",
        loader_timm.loader,
        hides=True,
        stays_open=False,
        requires=("timm",),
    ),
    # The queues between its stages hold about seven batches, more than a turn throws away: closed as well.
    LoaderPeer(
        SPDL, "SPDL, Python HaS on its batch", loader_spdl.loader, hides=True, stays_open=False, requires=("spdl",)
    ),
    # It compiles for ten seconds whenever it is opened, too long to try several numbers of its threads.
    LoaderPeer(
        FFCV,
        "FFCV (.beton, JPEG 90), Python HaS on its batch",
        loader_ffcv.loader,
        hides=True,
        threads_of=OURS,
        one_per_core=True,
    ),
    LoaderPeer(CEILING, "decode the crop box, nothing else", loader_dali.decode_ceiling, delivers=False, kind="bound"),
    LoaderPeer(READ, "read the files, nothing else", loader_dali.read_ceiling, delivers=False, kind="bound"),
)
LOADERS = {one.key: one for one in _LOADERS}
