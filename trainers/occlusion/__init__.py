"""Accuracy under occlusion (paper, section 4.6)."""
