"""The paper's figures, and curves and bars of our own, drawn from arrays: every function gives a matplotlib figure."""
