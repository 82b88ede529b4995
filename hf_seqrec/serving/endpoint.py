"""The files by which a Hugging Face Inference Endpoint serves a checkpoint folder: handler.py, requirements.txt."""

import importlib.metadata
import re
import shutil
from pathlib import Path

from ..checkpoints.load import load_checkpoint

HANDLER_FILE = "handler.py"
REQUIREMENTS_FILE = "requirements.txt"
# What the handler and the code of a model import. The endpoint installs them over what it has.
_NEEDED = ("numpy", "pyarrow", "safetensors", "torch", "transformers")


def write_endpoint(folder: str | Path) -> list[Path]:
    r"""
    Write handler.py and requirements.txt into a checkpoint folder, which travel with it; return their paths.

    Raises:
        ValueError: if the folder is not a whole checkpoint.
    """
    folder = Path(folder)
    load_checkpoint(folder)
    handler, requirements = folder / HANDLER_FILE, folder / REQUIREMENTS_FILE
    shutil.copyfile(Path(__file__).with_name("endpoint_handler.py"), handler)
    # Those of this package, so that the two never differ.
    ours = importlib.metadata.requires("hf-seqrec") or []
    needed = [line for line in ours if re.split(r"[^\w-]", line)[0] in _NEEDED and "extra ==" not in line]
    requirements.write_text("\n".join(sorted(needed)) + "\n", encoding="utf-8")
    return [handler, requirements]
