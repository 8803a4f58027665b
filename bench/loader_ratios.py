"""Is the loader as fast as it must be? ``python -m has_dali.bench.loader_ratios DATA [--json FILE]``.

Measures our CPU loader and its peers on DATA (one folder of images per class) and prints four ratios with the
bars they must reach. Ratios are taken round by round between peers measured in turns in one process, because
absolute images/s depend on the machine and on what else it does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from has_dali.cli import run_guarded
from has_dali.console import Parser, Terminal, check_writable, write_json
from has_dali.kernels.policy import HideAndSeek
from has_dali.kernels.threads import available_cores
from has_dali.pipelines.sources import open_source


def main(argv: Sequence[str]) -> int:
    """Measure, print, and say by the exit code whether all bars are met (0) or not (1)."""
    parser = Parser(
        "python -m has_dali.bench.loader_ratios", "Our CPU loader against its peers: four ratios and their bars."
    )
    parser.add_argument("data", metavar="DATA", help="folder with one folder of images per class")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="turns of each peer (7)")
    parser.add_argument(
        "--threads", type=int, default=available_cores(), metavar="N", help="threads or workers (cores)"
    )
    options = parser.parse_args(argv)
    for name in ("rounds", "threads"):
        if not 1 <= getattr(options, name) <= 1024:
            raise ValueError(f"--{name} {getattr(options, name)}: expected a whole number from 1 to 1024")
    if options.json is not None:
        check_writable(options.json)
    source = open_source(options.data)
    from has_dali.bench import loaders
    from has_dali.doctor import environment
    from has_dali.pipelines.statistics import describe_files, files_in_words

    source = loaders.some_of(source)
    terminal = Terminal(options.quiet)
    job = loaders.job_for(source, HideAndSeek(), options.threads)
    data = describe_files(job.files[: len(source)])
    with terminal.progress("measuring loaders", loaders.steps(options.rounds)) as advance:
        report = loaders.measure(job, len(source), options.rounds, advance=advance)
    terminal.say(f"data: {files_in_words(data)}")
    loaders.show_report(terminal, report)
    if options.json is not None:
        write_json(options.json, {"environment": environment(), "data": data, "loaders": report.to_dict()})
    ratios = [report.ratio(bar.peer) for bar in loaders.BARS]
    met = [ratio is not None and ratio.median >= bar.least for ratio, bar in zip(ratios, loaders.BARS, strict=True)]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(run_guarded("has_dali.bench.loader_ratios", lambda: main(sys.argv[1:])))
