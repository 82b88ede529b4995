"""Which backend is found where one of them cannot be used."""

import os
import subprocess
import sys


def test_numba_switched_off_leaves_torch_with_a_word():
    code = (
        "import torch; from hf_seqrec.ops import find_op; from tests.helpers import small_model;"
        "assert find_op('selective_scan', 'cpu') is None;"
        "print(small_model(13).eval()(torch.tensor([[1, 2]])).logits.isfinite()[..., 1:].all().item())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "True"
    # Once, though four kernels were looked for.
    assert done.stderr.count("UserWarning: NUMBA_DISABLE_JIT is set, so torch computes what numba would") == 1
