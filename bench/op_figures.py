"""What the operator benchmark derives from its tables: bytes moved, shares of the copy bandwidth, bars."""

from __future__ import annotations

from collections.abc import Sequence

from has_dali.bench.peers.op_bounds import COPY, MEMSET, STREAMED
from has_dali.bench.peers.op_has_dali import OURS
from has_dali.bench.peers.op_job import FUSED, HIDE, OpJob
from has_dali.bench.results import Bar, Row, Table
from has_dali.bench.same_job import hidden_moments
from has_dali.bench.timing import Summary

_SMALL, _LARGE = 8, 56


def bytes_moved(job: OpJob, form: str) -> float:
    """Bytes of one image that an operation of this form must read and write, on average.

    "in place": hidden bytes are written; "out of place": visible ones read, all written; "fused": visible bytes of the
    input read, all of the output written; "normalised": all of the input read as well; "copy": the output read
    and written.
    """
    hidden = hidden_moments(job.policy, job.size)[0]
    return {
        "in place": hidden * job.image_bytes,
        "out of place": (1 - hidden) * job.image_bytes + job.image_bytes,
        "fused": (1 - hidden) * job.image_bytes + job.output_bytes,
        "normalised": 1.0 * job.image_bytes + job.output_bytes,
        "copy": 2.0 * job.output_bytes,
    }[form]


def add_roofline(job: OpJob, table: Table) -> None:
    """Give every measured row its bytes, its GB/s, and its share of the copy's."""
    copy = fastest_copy(table)
    measured = [row for row in table.rows if row.value is not None]
    for row in measured:
        row.extra["bytes_per_image"] = round(bytes_moved(job, row.extra["form"]))
    for row in measured:
        assert row.value is not None
        row.extra["gb_per_s"] = row.value.median * row.extra["bytes_per_image"] / 1e9
        share = None if copy is None else copy_share(row, copy)
        row.extra["share_of_copy"] = None if share is None else share.median
    ours = table.row(OURS)
    if ours is not None and copy is not None and ours.value is not None and copy.value is not None:
        table.note = (
            f"has_dali moves {ours.extra['bytes_per_image']:,} bytes an image, {ours.extra['gb_per_s']:.1f} GB/s;"
            f" the faster copy ({copy.label.removeprefix('bound: ')}) moves {copy.extra['gb_per_s']:.1f} GB/s"
        )


def fastest_copy(table: Table) -> Row | None:
    """The copy that bounds a table: of those that were measured the faster one."""
    measured = [row for row in (table.row(COPY), table.row(STREAMED)) if row is not None and row.value is not None]
    return max(measured, key=lambda row: row.value.median if row.value else 0.0, default=None)


def copy_share(row: Row, copy: Row) -> Summary | None:
    """Bytes per second of a row over those of the copy, round by round; both have ``bytes_per_image``."""
    if row.value is None or copy.value is None:
        return None
    moved, copied = row.extra["bytes_per_image"], copy.extra.get("bytes_per_image")
    if copied is None:
        return None
    pairs = zip(row.value.values, copy.value.values, strict=True)
    return Summary(tuple(own * moved / (other * copied) for own, other in pairs))


def bars(tables: Sequence[Table]) -> list[Bar]:
    """What design asks of the operators, for every table that shows it."""
    found = []
    for table in tables:
        kind = table.parameters["kind"]
        if table.key.endswith("-sizes"):
            found += _sizes_bar(table)
        elif kind == HIDE:
            what = f"{table.title}: in place over writing the hidden bytes alone"
            found.append(Bar(what, table.speed_ratio(OURS, MEMSET), at_least=0.5, aim=0.9))
        elif kind == FUSED and table.parameters["threads"] == 1:
            ours, copy = table.row(OURS), fastest_copy(table)
            share = None if ours is None or copy is None else copy_share(ours, copy)
            note = "" if copy is None else f"the faster copy is the {copy.label.removeprefix('bound: ')}"
            what = f"{table.title}: share of the copy bandwidth of one core"
            found.append(Bar(what, share, at_least=0.5, aim=0.8, note=note))
    return found


def _sizes_bar(table: Table) -> list[Bar]:
    cost = table.speed_ratio(f"S={_LARGE}", f"S={_SMALL}")
    if cost is None:
        return []
    return [Bar(f"{table.title}: cost at S = {_SMALL} over cost at S = {_LARGE}", cost, at_most=1.25, aim=1.05)]
