"""From checkpoints of the authors' code to checkpoint folders of this package, without running what is in them."""

from .conversion import Conversion, convert_checkpoint

__all__ = ["Conversion", "convert_checkpoint"]
