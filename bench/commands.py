"""Commands about speed: ``demo`` and ``bench``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from has_dali.console import Parser, Terminal, check_writable, output_folder


def demo(argv: Sequence[str]) -> int:
    """``has-dali demo [--data DIR] [--out DIR]``: the main job end to end, on a machine without a GPU too."""
    parser = Parser("has-dali demo", "Contact sheet, loader speeds and a short training with Hide-and-Seek.")
    parser.add_argument("--data", metavar="DIR", help="one folder of images per class (an embedded corpus)")
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="where results go (demo)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="measured turns of each loader (5)")
    parser.add_argument("--steps", type=int, default=40, metavar="N", help="training steps, at most 45 seconds (40)")
    options = parser.parse_args(argv)
    for name, least in (("rounds", 1), ("steps", 2)):
        if not least <= getattr(options, name) <= 10**6:
            raise ValueError(f"--{name} {getattr(options, name)}: expected a whole number from {least}")
    if options.json is not None:
        check_writable(options.json)
    from has_dali.pipelines.sources import open_source

    # Bad data is found before the imports that take seconds, and before the output folder is made.
    source = None if options.data is None else open_source(options.data)
    with output_folder(options.out):
        from has_dali.bench.demo import run_demo

        run_demo(source, options.out, Terminal(options.quiet), options.rounds, options.steps, options.json)
    return 0


_USAGE = """usage: has-dali bench SCOPE [OPTION ...]       one scope, against what a user would pick instead
       has-dali bench all [OPTION ...]         the scopes that need no GPU, one JSON file each
       has-dali bench compare A.json B.json    exit code 1 where B is slower beyond noise
       has-dali bench --suggest DATA           threads, batch and device for this machine, with the reasons

{scopes}

Every scope takes --json FILE, --markdown FILE, --plot FILE (.png, .svg), --rounds N, --quick and --quiet;
has-dali bench SCOPE --help explains one.
"""


def bench(argv: Sequence[str]) -> int:
    """``has-dali bench SCOPE``: ratios measured in turns; scopes are never mixed in one table."""
    from has_dali.bench.running import SCOPES, run_scope

    if not argv or argv[0] in ("-h", "--help"):
        Terminal().say(_USAGE.format(scopes="\n".join(f"  {name:<8} {scope.help}" for name, scope in SCOPES.items())))
        return 0 if argv else 2
    name, *rest = argv
    if name == "compare":
        from has_dali.bench.comparing import main as compare

        return compare(rest)
    if name == "all":
        from has_dali.bench.suite import main as run_all

        return run_all(rest)
    if name == "--suggest" or name.startswith("--suggest="):
        from has_dali.bench.suggesting import main as suggest

        return suggest([*([name.partition("=")[2]] if "=" in name else []), *rest])
    return run_scope(name, rest)
