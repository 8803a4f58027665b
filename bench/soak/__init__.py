"""Long trials of the loaders: flat memory, random kills, broken files. ``python -m has_dali.bench.soak --help``."""
