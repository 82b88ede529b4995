"""The Hub: upload a folder, push a checkpoint, a dataset or a metric."""
