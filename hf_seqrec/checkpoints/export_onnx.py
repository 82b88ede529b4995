"""
Export a checkpoint to ONNX: histories in, scores of the whole catalog out, in one file that needs no Python to run.

    hf-seqrec export-onnx runs/ml-1m --output mamba4rec.onnx
"""

import copy
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.catalog import Catalog
from ..installing import install_hint
from ..models.history_padding import right_padded
from ..models.modeling_seqrec import SeqRecPreTrainedModel

# Scores that differ by more are refused.
_TOLERANCE = 1e-4


class Scorer(nn.Module):
    r"""
    What is exported: `(b, l)` histories and their mask to `(b, v)` scores of the next item, padding row at `-inf`.

    As the model itself scores them, except that a history with more items than the model has positions is cut to its
    most recent ones, as `recommend` does, instead of refused.
    """

    def __init__(self, model: SeqRecPreTrainedModel) -> None:
        super().__init__()
        self.model = model
        longest = model.config.max_position_embeddings
        # A cloze model puts its mask row behind the history.
        self.longest = longest - 1 if longest is not None and model.config.objective == "cloze" else longest

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Score the catalog for each history, padded on either side."""
        padding = right_padded(attention_mask)
        input_ids, mask = padding.gather(input_ids), padding.attention_mask
        if self.longest is not None:
            places = torch.arange(torch.sym_min(mask.shape[1], self.longest), device=mask.device)
            places = places + (mask.sum(dim=1, keepdim=True) - self.longest).clamp(min=0)
            input_ids, mask = input_ids.gather(1, places), mask.gather(1, places)
        return self.model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits


def export_onnx(model: SeqRecPreTrainedModel, path: str | Path, catalog: Catalog | None = None) -> float:
    r"""
    Write a model's scores as an ONNX file, check it with onnxruntime, and return the largest difference from torch.

    The file takes `input_ids` and `attention_mask`, int64 of shape `(batch, length)`, any of both, padded on either
    side, no row empty, and gives `scores`, float32 of shape `(batch, v)`, with row 0 (padding) at `-inf`. Weights of
    more than about 1.5 GB go into a second file beside it. Nothing is left behind where something fails.

    Args:
        model ([`SeqRecPreTrainedModel`]): In float32.
        path (`str`): The file to write; replaced if it is there.
        catalog ([`Catalog`], *optional*): Whose fingerprint is noted in the file, beside the model's type.

    Raises:
        ImportError: if the extra `onnx` is not installed.
        ValueError: if the model cannot be exported, or its scores change by more than 1e-4.
    """
    _check_exportable(model)
    program = _exported(model)
    program.model.metadata_props["hf_seqrec.model_type"] = model.config.model_type
    program.model.metadata_props["hf_seqrec.n_items"] = str(model.config.n_items)
    if catalog is not None:
        program.model.metadata_props["hf_seqrec.catalog"] = catalog.fingerprint()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        # Under its own name: large weights are found by it.
        program.save(Path(folder) / path.name)
        difference = largest_difference(model, Path(folder) / path.name)
        if not difference <= _TOLERANCE:
            raise ValueError(
                f"onnxruntime's scores differ from those of torch by {difference:.1e}, more than {_TOLERANCE}, so "
                f"{path} was not written. The versions of torch, onnxscript and onnxruntime may not fit each other."
            )
        for file in sorted(Path(folder).iterdir(), reverse=True):
            shutil.move(file, path.parent / file.name)
    return difference


def largest_difference(model: SeqRecPreTrainedModel, path: str | Path) -> float:
    """Score histories of many lengths, padded on either side, with onnxruntime and with torch, and compare."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    scorer = Scorer(model).eval()
    generator = torch.Generator().manual_seed(0)
    differences = []
    for rows, length in ((1, 1), (2, 2), (5, 17), (1, 40), (3, (scorer.longest or 60) + 3)):
        input_ids = torch.randint(1, model.config.n_items + 1, (rows, length), generator=generator)
        lengths = torch.randint(1, length + 1, (rows, 1), generator=generator)
        mask = (torch.arange(length) < lengths).long()
        for attention_mask in (mask, mask.flip(1)):
            inputs = {"input_ids": input_ids * attention_mask, "attention_mask": attention_mask}
            (scores,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
            with torch.no_grad():
                expected = scorer(**inputs)
            if scores.shape != expected.shape:
                return float("inf")
            differences.append((torch.from_numpy(scores)[:, 1:] - expected[:, 1:]).abs().max())
    # A NaN stays one.
    return float(torch.stack(differences).max())


def _check_exportable(model: SeqRecPreTrainedModel) -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"Exporting needs {', '.join(missing)}: {install_hint('onnx')}.")
    dtypes = sorted({str(parameter.dtype) for parameter in model.parameters()} - {"torch.float32"})
    if dtypes:
        raise ValueError(f"`model` must be in float32 to be exported, got {', '.join(dtypes)}. Call `model.float()`.")


def _exported(model: SeqRecPreTrainedModel) -> Any:
    """The model as torch's `ONNXProgram`."""
    scorer = Scorer(_with_exportable_layers(model)).eval()
    # Any histories will do, but for one alone or of a single item: of these numbers torch would make constants. The
    # file takes them all the same.
    input_ids, mask = torch.ones(2, 2, max(2, min(40, (scorer.longest or 41) - 1)), dtype=torch.long).unbind()
    axes = {0: torch.export.Dim("batch", min=2), 1: torch.export.Dim("length", min=2)}
    try:
        with torch.no_grad(), _scan_backend("onnx"):
            exported = torch.export.export(
                scorer,
                (input_ids, mask),
                dynamic_shapes=(axes, axes),
                strict=False,
                # What torch cannot prove of every length, it would refuse; `largest_difference` tries some.
                prefer_deferred_runtime_asserts_over_guards=True,
            )
        program = torch.onnx.export(
            exported,
            input_names=["input_ids", "attention_mask"],
            output_names=["scores"],
            custom_translation_table=_translations(),
            dynamo=True,
            verbose=False,
        )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise ValueError(
            f"This {type(model).__name__} cannot be exported to ONNX by torch {torch.__version__}: {error}"
        ) from error
    assert program is not None  # only without dynamo
    return program


def _with_exportable_layers(model: SeqRecPreTrainedModel) -> SeqRecPreTrainedModel:
    """A copy that shares its weights with the model, with the layers of which ONNX has its own in its own form."""
    from ..ops.onnx_gru import ExportableGRU

    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    model = copy.deepcopy(model, shared)
    model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.GRU):
                setattr(module, name, ExportableGRU(child))
    return model


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    from ..ops import onnx_gru, onnx_scan

    return onnx_scan.translations() | onnx_gru.translations()


@contextmanager
def _scan_backend(name: str) -> Iterator[None]:
    """Compute every selective scan by one backend, as if the user had asked for it."""
    before = os.environ.get("HF_SEQREC_SCAN")
    os.environ["HF_SEQREC_SCAN"] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ["HF_SEQREC_SCAN"]
        else:
            os.environ["HF_SEQREC_SCAN"] = before
