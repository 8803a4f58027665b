"""The paper's metrics, and those of later papers on the same task."""
