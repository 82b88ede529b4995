"""From a raw log to a dataset folder."""
