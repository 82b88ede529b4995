"""What is simple, to stand beside every model."""
