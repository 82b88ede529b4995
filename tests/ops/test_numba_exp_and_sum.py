"""The numba exponentials against the definition."""

import pytest
import torch

from hf_seqrec.models.op_exp_and_sum import exp_and_sum, exp_and_sum_reference

pytest.importorskip("numba")

from hf_seqrec.ops import numba_exp_and_sum
from hf_seqrec.ops.numba_shares import _WORTH_A_THREAD

# Of what a float32 or a bfloat16 can hold.
PRECISION = {torch.float32: 1e-5, torch.bfloat16: 2**-8}


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("with_shift", [True, False])
@pytest.mark.parametrize("dtype", list(PRECISION))
@pytest.mark.parametrize(("m", "n"), [(1, 1), (3, 7), (2, 16), (5, 31), (4, 48), (2, 100), (0, 5)])
def test_is_the_definition(m, n, dtype, with_shift, with_bias, keep):
    generator = torch.Generator().manual_seed(0)
    # Columns of something wider, as the last part of a catalog is.
    scores = torch.randn(m, n + 3, generator=generator).mul(4).to(dtype)[:, :n]
    shift = torch.randn(m, generator=generator) + 4 if with_shift else None
    bias = torch.randn(n, generator=generator) if with_bias else None
    found, wanted = scores.clone(), scores.clone()
    sums, shifts = numba_exp_and_sum.exp_and_sum(found, shift, bias, keep)
    wanted_sums, wanted_shifts = exp_and_sum_reference(wanted, shift, bias, keep)
    torch.testing.assert_close(sums, wanted_sums, rtol=3e-6, atol=0)
    torch.testing.assert_close(shifts, wanted_shifts, rtol=0, atol=0)
    if keep:
        torch.testing.assert_close(found.float(), wanted.float(), rtol=PRECISION[dtype], atol=1e-30)


@pytest.mark.parametrize("dtype", list(PRECISION))
def test_leaves_what_is_beside_its_columns(dtype):
    scores = torch.full((3, 40), 7.0, dtype=dtype)
    numba_exp_and_sum.exp_and_sum(scores[:, 3:22])
    beside = torch.cat([scores[:, :3], scores[:, 22:]], dim=1)
    assert (beside == 7).all()
    assert (scores[:, 3:22] == 1).all()


@pytest.mark.parametrize("dtype", list(PRECISION))
@pytest.mark.parametrize("place", [0, 17, 33])
def test_what_is_no_number_stays_so(dtype, place):
    for wrong in (torch.nan, torch.inf):
        scores = torch.zeros(3, 35, dtype=dtype)
        scores[1, place] = wrong
        sums, _ = exp_and_sum(scores, keep=False)
        assert sums.isfinite().tolist() == [True, False, True]


def test_scores_far_below_the_shift_count_for_nothing():
    scores = torch.tensor([[0.0, -50.0, -1000.0, -torch.inf], [3e38, 0.0, 0.0, 0.0]])
    sums, _ = numba_exp_and_sum.exp_and_sum(scores)
    torch.testing.assert_close(sums, torch.ones(2))
    torch.testing.assert_close(scores[0], torch.tensor([1.0, 1.9287498e-22, 0.0, 0.0]), rtol=1e-5, atol=1e-30)


def test_result_does_not_depend_on_the_threads():
    scores = torch.randn(64, _WORTH_A_THREAD // 32)
    threads = torch.get_num_threads()
    results = []
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            copy = scores.clone()
            results.append((copy, *numba_exp_and_sum.exp_and_sum(copy)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_other_types_are_torchs(monkeypatch):
    doubles = torch.randn(2, 5, dtype=torch.float64)
    with pytest.raises(TypeError, match=r"float32 and bfloat16, got torch\.float64"):
        numba_exp_and_sum.exp_and_sum(doubles.clone())
    sums, highest = exp_and_sum(doubles.clone())
    torch.testing.assert_close(sums.log() + highest, doubles.logsumexp(dim=1).float())
    monkeypatch.setattr(numba_exp_and_sum, "exp_and_sum", lambda *_: pytest.fail("torch was asked for"))
    monkeypatch.setenv("HF_SEQREC_SCAN", "chunked")
    exp_and_sum(torch.randn(2, 5))
