import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hf_seqrec.training.recipes import read_recipe, recipe_names

ROOT = Path(__file__).parents[2]


def test_short_names_and_addresses_in_a_clone():
    assert "ml-1m/mamba4rec" in recipe_names()
    expected = read_recipe("ml-1m/mamba4rec")
    assert expected["model_type"] == "mamba4rec"
    for address in ("ml-1m/mamba4rec.yaml", "trainer/recipes/ml-1m/mamba4rec.yaml"):
        assert read_recipe(address) == expected
    assert read_recipe(str(ROOT / "trainer/recipes/ml-1m/mamba4rec.yaml")) == expected


def test_a_file_of_the_same_name_comes_first(tmp_path, monkeypatch):
    (tmp_path / "trainer/recipes/ml-1m").mkdir(parents=True)
    (tmp_path / "trainer/recipes/ml-1m/mamba4rec.yaml").write_text("hidden_size: 7\n")
    monkeypatch.chdir(tmp_path)
    assert read_recipe("trainer/recipes/ml-1m/mamba4rec.yaml") == {"hidden_size": 7}
    assert read_recipe("ml-1m/mamba4rec")["hidden_size"] == 64


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no file .*recipe\.yaml, and no recipe of that name\. There are .*ml-1m/mamba4rec, .*/sasrec"),
        ("model:\n  hidden_size: 32\n", "flat YAML mapping"),
        ("- hidden_size\n", "flat YAML mapping"),
        ("hidden_size: [\n", "cannot be read as YAML"),
    ],
)
def test_recipes_that_are_none(tmp_path, content, message):
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_recipe(str(path))


def test_recipes_are_found_in_an_archive(tmp_path):
    """Not only in a folder: a package may be imported from a zip file."""
    package = tmp_path / "package/hf_seqrec"
    shutil.copytree(ROOT / "hf_seqrec/recipes", package / "recipes")
    (package / "__init__.py").touch()
    (package / "training").mkdir()
    (package / "training/__init__.py").touch()
    shutil.copy(ROOT / "hf_seqrec/training/recipes.py", package / "training")
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as archive:
        for path in sorted(package.rglob("*")):
            archive.write(path, path.relative_to(package.parent))
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path / "package.zip")!r})
from hf_seqrec.training import recipes
assert ".zip" in recipes.__file__, recipes.__file__
print(len(recipes.recipe_names()), recipes.read_recipe("ml-1m/sasrec"))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{len(recipe_names())} ")
    assert "'model_type': 'sasrec'" in done.stdout
