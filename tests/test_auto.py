"""Importing the package registers its models with the Auto classes, in any order of imports, and loads no torch."""

import subprocess
import sys

import pytest

import hf_seqrec


def run(code):
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.split()


@pytest.mark.parametrize(
    "imports",
    [
        "import hf_seqrec\nfrom transformers import AutoConfig, AutoModel",
        "from transformers import AutoConfig, AutoModel\nimport hf_seqrec",
        "from transformers import AutoConfig\nimport hf_seqrec\nfrom transformers import AutoModel",
        # A model imports transformers' registry on its way, and so does a module that models import.
        "import hf_seqrec.models.modeling_mamba4rec\nfrom transformers import AutoConfig, AutoModel",
        "import hf_seqrec, transformers.modeling_layers\nfrom transformers import AutoConfig, AutoModel",
        "from hf_seqrec import SASRecConfig, Mamba4Rec\nfrom transformers import AutoConfig, AutoModel",
    ],
)
def test_registers_in_any_order_of_imports(imports):
    code = f"{imports}\nprint(type(AutoModel.from_config(AutoConfig.for_model('mamba4rec'))).__name__)"
    assert run(code) == ["Mamba4Rec"]


def test_import_is_light():
    heavy = (
        "torch",
        "transformers",
        "numba",
        "triton",
        "duckdb",
        "ibis",
        "pandas",
        "pyarrow",
        "matplotlib",
        "mamba_ssm",
    )
    assert run(f"import sys, hf_seqrec\nprint(*[name for name in {heavy} if name in sys.modules])") == []


def test_every_public_name_resolves():
    for name in dir(hf_seqrec):
        assert getattr(hf_seqrec, name) is not None
    for model_type in hf_seqrec.MODEL_TYPES:
        assert hf_seqrec.model_class(model_type).__name__.lower() == model_type
        assert hf_seqrec.config_class(model_type).model_type == model_type


def test_unknown_names():
    with pytest.raises(AttributeError, match="no attribute 'Mamba5Rec'"):
        hf_seqrec.Mamba5Rec  # noqa: B018
