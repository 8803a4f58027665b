"""What is measured: one scope per module."""
