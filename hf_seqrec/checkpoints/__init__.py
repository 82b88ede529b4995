"""Checkpoint folders: load, adapt to another catalog, card, export, convert."""
