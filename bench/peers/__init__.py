"""What is compared: one module per alternative."""
