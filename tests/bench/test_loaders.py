"""Peers do the job on real files; one that does not gets no speed; the report adds up."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from has_dali.bench import loader_ratios, loaders, same_job, timing
from has_dali.bench.loader_peers import CEILING, OURS, OURS_PLAIN, PEERS, Job, Peer, hide_patches
from has_dali.console import Terminal, json_text
from has_dali.kernels.policy import HideAndSeek
from has_dali.pipelines.sources import folder_source

BATCH, SIZE = 16, 64
SHORT = timing.Window(seconds=0.0, batches=1, discarded=0, stride=1)


@pytest.fixture
def job(jpeg_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setattr(loaders, "_EPOCH_IMAGES", 72)
    full = loaders.job_for(folder_source(jpeg_folder), HideAndSeek((8, 16, 24)), threads=2, batch_size=BATCH)
    return Job(full.files, full.labels, full.policy, BATCH, 2, SIZE)


def test_small_sets_are_listed_again(job: Job) -> None:
    assert len(job.files) == len(job.labels) == 72
    assert job.files[36:] == job.files[:36] and sorted(set(job.labels)) == [0, 1, 2]


def test_large_sets_are_thinned_out_evenly(jpeg_folder: Path) -> None:
    source = folder_source(jpeg_folder)
    assert loaders.some_of(source) is source
    some = loaders.some_of(source, 9)
    assert [some.path(i) for i in range(9)] == [source.path(4 * i) for i in range(9)]
    assert some.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] and some.classes == source.classes


@pytest.mark.parametrize("key", [key for key, peer in PEERS.items() if peer.delivers])
def test_every_peer_does_the_job(key: str, job: Job) -> None:
    peer = PEERS[key]
    with peer.open(job) as batches:
        seen = [next(batches) for _ in range(6)]  # more than an epoch: the iterator is endless
    policy = job.policy if peer.hides else None
    check = same_job.inspect(seen)
    assert same_job.difference(check, policy, 6 * BATCH, BATCH, SIZE) is None
    labels = torch.cat([batch["label"] for batch in seen])
    assert set(labels.tolist()) == {0, 1, 2}


def test_ceiling_decodes_a_crop_of_each_image(job: Job) -> None:
    with PEERS[CEILING].open(job) as batches:
        images, labels = next(batches)
    shapes = [tuple(shape) for shape in images.shape()]
    assert len(shapes) == len(labels) == BATCH
    assert len(set(shapes)) > 1 and all(h <= 120 and w <= 160 and c == 3 for h, w, c in shapes)


def fake(policy: HideAndSeek | None) -> Any:
    @contextlib.contextmanager
    def opened(job: Job) -> Iterator[Iterator[Any]]:
        def batches() -> Iterator[dict[str, torch.Tensor]]:
            start = 0
            while True:
                image = torch.randn(job.batch_size, 3, job.size, job.size)
                if policy is not None:
                    ids = torch.arange(start, start + job.batch_size).numpy()
                    image.masked_fill_(torch.from_numpy(policy.mask(ids, 0, job.size, job.size))[:, None], 0.0)
                start += job.batch_size
                yield {"image": image, "label": torch.zeros(job.batch_size, dtype=torch.int64)}

        yield batches()

    return opened


def test_a_peer_that_skips_work_is_void(job: Job) -> None:
    peers = {
        OURS: Peer("ours", fake(job.policy), hides=True),
        OURS_PLAIN: Peer("plain", fake(None), stays_open=False),
        "lazy": Peer("lazy", fake(None), hides=True),
    }
    report = loaders.measure(job, 36, rounds=3, window=SHORT, peers=peers)
    assert list(report.void) == ["lazy"] and "hides 0.0%" in report.void["lazy"]
    assert set(report.rates) == {OURS, OURS_PLAIN} and len(report.rates[OURS].values) == 3
    assert report.ratio("lazy") is None and report.ratio(OURS_PLAIN) is not None
    text = json.loads(json_text(report.to_dict()))
    assert {record["peer"]: "ratio" in record for record in text["ratios"]} == {
        CEILING: False,
        OURS_PLAIN: True,
        "dali": False,
        "torchvision": False,
    }


def test_ratios_and_bars(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    report = loaders.LoaderReport(job, 36)
    rates = {CEILING: 1000.0, OURS: 900.0, OURS_PLAIN: 1000.0, "dali": 500.0, "torchvision": 200.0}
    report.rates = {key: timing.Summary((value,) * 3) for key, value in rates.items()}
    loaders.show_report(Terminal(), report)
    out = capsys.readouterr().out
    verdicts = {bar.peer: loaders._bar_row(report, bar)[-1] for bar in loaders.BARS}
    assert verdicts == {CEILING: "yes", OURS_PLAIN: "NO", "dali": "aim", "torchvision": "yes"}
    assert "the decode ceiling itself is 5.0x torchvision here" in out
    assert report.to_dict()["ceiling_over_torchvision"]["median"] == 5.0
    assert "4.50" in out and "1.80x" in out and "page cache warm" in out and "unstable" not in out
    report.rates[OURS] = timing.Summary((900.0, 500.0, 1300.0))
    loaders.show_report(Terminal(), report)
    assert report.unstable and "repeat while the machine is idle" in capsys.readouterr().out


def test_authors_form_hides_whole_cells_of_the_right_share() -> None:
    torch.manual_seed(0)
    hidden = [(hide_patches(torch.ones(3, 50, 70), HideAndSeek((16,), p_hide=0.3)) == 0).all(dim=0) for _ in range(60)]
    share = torch.stack(hidden).float().mean().item()
    assert 0.25 < share < 0.35
    for mask in hidden[:5]:
        for y in range(0, 50, 16):
            for x in range(0, 70, 16):
                assert mask[y : y + 16, x : x + 16].unique().numel() == 1
    assert (hide_patches(torch.ones(3, 8, 8), HideAndSeek((4,), p_hide=1.0)) == 0).all()
    assert (hide_patches(torch.ones(3, 8, 8), HideAndSeek((0,), p_hide=1.0)) == 1).all()


def test_bad_input_of_the_script(tmp_path: Path, jpeg_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        loader_ratios.main([str(tmp_path / "none")])
    with pytest.raises(ValueError, match="--rounds 0"):
        loader_ratios.main([str(jpeg_folder), "--rounds", "0"])
    with pytest.raises(FileNotFoundError, match="does not exist"):
        loader_ratios.main([str(jpeg_folder), "--json", str(tmp_path / "a" / "b.json")])
