"""Which extra brings a package, and how to install it: the one place for what messages say about it."""

# Packages that are imported only where they are needed, and the extra that has each.
EXTRA_OF_MODULE = {
    "duckdb": "data",
    "faiss": "ann",
    "fastapi": "serve",
    "gradio": "demo",
    "ibis": "data",
    "matplotlib": "plot",
    "numba": "cpu",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "pandas": "data",
    "pyspark": "spark",
    "requests": "data",
    "s3fs": "s3",
    "uvicorn": "serve",
}


def install_hint(extra: str) -> str:
    """
    Return the command that installs an extra, or several (`"data,spark"`).

    Example:

    ```python
    >>> install_hint("serve")
    'pip install "hf-seqrec[serve]"'
    ```
    """
    return f'pip install "hf-seqrec[{extra}]"'
