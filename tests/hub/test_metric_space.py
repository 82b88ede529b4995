import json
import os
import re
import subprocess
import sys

import pytest
import yaml

from hf_seqrec.hub.metric_space import MODULES, push_metric_space, render_metric_card, write_metric_space

CALLS = {
    "full_ranking": {"predictions": [[9.0, 0.9, 0.5]], "references": [2], "seen_items": [[1]], "k": 1},
    "sampled_ranking": {
        **{"predictions": [[9.0, 0.9, 0.5, 0.1]], "references": [2], "seen_items": [[1]], "k": 1, "n_negatives": 1},
    },
    "grouped_ranking": {"predictions": [0, 3], "references": ["new", "old"], "k": 1, "n_resamples": 10},
    "beyond_accuracy": {"predictions": [[1, 2]], "item_counts": [0, 4, 2]},
}


def test_every_module_loads_from_its_space_where_the_package_is_absent(tmp_path):
    folders = {name: str(write_metric_space(name, tmp_path)) for name in MODULES}
    script = """
import json, sys
sys.modules["hf_seqrec"] = None
import evaluate
calls, folders = json.loads(sys.argv[1]), json.loads(sys.argv[2])
print(json.dumps({name: evaluate.load(folders[name]).compute(**calls[name]) for name in calls}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(CALLS), json.dumps(folders)],
        env={**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results["full_ranking"]["hr@1"] == 1.0
    assert results["full_ranking"]["hr@1_with_seen"] == 0.0
    assert results["sampled_ranking"] == {"hr@1_1_uniform": 1.0, "ndcg@1_1_uniform": 1.0, "mrr@1_1_uniform": 1.0}
    assert results["grouped_ranking"]["all"]["hr@1"] == 0.5
    assert results["beyond_accuracy"]["coverage@2"] == 1.0


@pytest.mark.parametrize("name", MODULES)
def test_a_space_says_what_it_is(tmp_path, name):
    folder = write_metric_space(name, tmp_path)
    _, header, text = (folder / "README.md").read_text().split("---\n", 2)
    metadata = yaml.safe_load(header)
    assert metadata["sdk"] == "gradio"
    assert metadata["app_file"] == "app.py"
    assert "metric" in metadata["tags"]
    assert metadata["title"].lower().replace(" ", "_") == name
    for section in ("## Description", "## How to use", "### Inputs", "- **predictions**: "):
        assert section in text
    assert f'evaluate.load("user/{name}")' in text
    compile((folder / "app.py").read_text(), "app.py", "exec")
    assert {re.split("[>=]", line)[0] for line in (folder / "requirements.txt").read_text().split()} == {
        *("datasets", "evaluate", "numpy")
    }


def test_citations_reach_the_card():
    assert "10.1145/2043932.2043955" in str(render_metric_card("beyond_accuracy"))
    assert "10.1145/3394486.3403226" in str(render_metric_card("sampled_ranking"))


def test_a_space_of_another_name(tmp_path):
    folder = write_metric_space("beyond_accuracy", tmp_path)
    with pytest.raises(ValueError, match=r"`repo_id` must end with the name of the metric.* 'org/beyond_accuracy'"):
        push_metric_space(folder, "org/coverage")


def test_another_name(tmp_path):
    with pytest.raises(ValueError, match=r"`name` must be one of full_ranking, .* got 'accuracy'"):
        write_metric_space("accuracy", tmp_path)
