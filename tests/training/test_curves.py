import subprocess
import sys

from hf_seqrec.training.curves import draw_curves

LOG = [
    {"epoch": 1.0, "loss": 7.0},
    {
        "epoch": 1.0,
        "eval_loss": 6.5,
        **{f"eval_{name}{suffix}": 0.1 for name in ("hr@10", "ndcg@10") for suffix in ("", "_with_seen")},
    },
]


def test_draws_a_picture(tmp_path):
    draw_curves(LOG, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_to_draw_yet(tmp_path):
    draw_curves(LOG[:1], tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_without_matplotlib_there_is_no_picture_and_no_error(tmp_path):
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        f"from hf_seqrec.training.curves import draw_curves; draw_curves({LOG!r}, {str(tmp_path / 'curves.png')!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not (tmp_path / "curves.png").exists()
