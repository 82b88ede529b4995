"""What holds for the tree as a whole: light imports, flat folders, pinned versions, no paths of anyone's machine."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import hf_seqrec
from hf_seqrec.cli import COMMANDS
from tests import rooms

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
ROOMS = ("hf_seqrec", "dataset_scripts", "trainer", "model_cards", "benchmarks", "docs", "tests", ".ci", ".github")
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


def text_files() -> Iterator[Path]:
    """Yield what a person wrote: the files at the root, and those of every room."""
    files = [*ROOT.glob("*"), *(path for room in ROOMS for path in (ROOT / room).rglob("*"))]
    suffixes = {"", ".cfg", ".json", ".md", ".py", ".toml", ".txt", ".yaml", ".yml"}
    yield from (path for path in files if path.is_file() and path.suffix in suffixes and path.name != ".coverage")


class TestImports:
    """Somebody who wants the metrics should not wait for torch, nor install what only preprocessing needs."""

    def loaded(self, statement: str) -> set[str]:
        script = f"import sys\n{statement}\nprint(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    def test_the_package_loads_nothing_but_itself(self):
        loaded = self.loaded("import hf_seqrec")
        assert not loaded & {"numpy", "torch", "transformers", "datasets", "evaluate", "pyarrow"}
        assert not loaded & {"numba", "triton", "mamba_ssm", "duckdb", "ibis", "pandas", "pyspark", "matplotlib"}

    def test_the_metrics_load_numpy_only(self):
        loaded = self.loaded("from hf_seqrec.metrics import ranking_metrics")
        assert "numpy" in loaded
        assert not loaded & {"torch", "transformers", "datasets", "evaluate", "pyarrow", "pandas"}

    def test_the_models_load_no_kernels_and_no_data_engines(self):
        loaded = self.loaded("\n".join(f"import hf_seqrec.models.modeling_{name}" for name in hf_seqrec.MODEL_TYPES))
        assert "torch" in loaded
        # Kernels are chosen at the first call, from the device.
        assert not loaded & {"numba", "mamba_ssm", "duckdb", "ibis", "pyspark", "matplotlib", "evaluate"}
        assert not any(name.startswith("hf_seqrec.ops") for name in loaded)


def required_imports(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield every import that the Hub's loaders take for required: all but those in the body of a `try`."""
    optional = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.Try)
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in optional:
            yield node


def siblings(path: Path) -> set[str]:
    """Return the names of the files of the same folder that a file imports."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.level and node.module}


class TestRooms:
    """Every arrow between rooms points down: from commands to what they use, and never back."""

    def test_no_room_imports_what_it_may_not(self):
        found = rooms.arrows()
        assert {(*pair, place) for pair in rooms.forbidden(set(found)) for place in found[pair]} == set()

    def test_no_circle(self, capsys):
        pairs = set(rooms.arrows())
        assert rooms.circles(pairs) == []
        with capsys.disabled():
            n_rooms = len({name for pair in pairs for name in pair})
            print(f"\n{n_rooms} rooms, {len(pairs)} arrows, 0 up, 0 circles")

    def test_the_law_would_be_noticed(self):
        assert rooms.forbidden({("data", "models"), ("models", "ops"), ("hub", "cli")}) == [
            ("data", "models"),
            ("hub", "cli"),
        ]
        assert rooms.circles({("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")}) == ["a", "b", "c"]

    def test_functions_of_the_base_model_stay_short(self):
        tree = ast.parse((ROOT / "hf_seqrec/models/modeling_seqrec.py").read_text(encoding="utf-8"))
        (forward,) = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "forward")
        docstring = forward.body[0]
        assert (forward.end_lineno or 0) - (docstring.end_lineno or 0) < 50


FLAT_FILES = sorted((ROOT / "hf_seqrec/models").glob("*.py")) + sorted((ROOT / "hf_seqrec/metrics").glob("*.py"))


class TestFlatFolders:
    """The Hub copies the file that defines a class and its single-dot imports, and nothing else."""

    @pytest.mark.parametrize("folder", ["models", "metrics"])
    def test_there_are_no_folders_inside(self, folder):
        inside = {path.name for path in (ROOT / "hf_seqrec" / folder).iterdir() if path.is_dir()}
        assert inside <= {"__pycache__"}

    @pytest.mark.parametrize("path", FLAT_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
    def test_imports(self, path):
        third_party = {
            "models": {"torch", "numpy", "transformers", "huggingface_hub"},
            "metrics": {"numpy", "datasets", "evaluate"},
        }[path.parent.name]
        for node in required_imports(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert len(node.names) == 1, f"line {node.lineno}: one import per line"
                modules = [alias.name for alias in node.names]
            elif node.level:
                assert node.level == 1, f"line {node.lineno}: beyond the folder"
                assert node.module is not None, f"line {node.lineno}: `from . import` is not copied"
                assert (path.parent / f"{node.module}.py").is_file(), f"line {node.lineno}: no sibling {node.module}"
                continue
            else:
                modules = [node.module or ""]
            for module in modules:
                root = module.partition(".")[0]
                assert root in third_party | sys.stdlib_module_names, f"line {node.lineno}: {module}"

    @pytest.mark.parametrize("path", FLAT_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
    def test_no_text_looks_like_a_relative_import(self, path):
        text = path.read_text(encoding="utf-8")
        imports = {node.lineno for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)}
        for number, line in enumerate(text.splitlines(), start=1):
            assert number in imports or not re.match(r"\s*(from|import)\s+\.", line), f"line {number}: {line.strip()}"

    def test_evaluate_modules_import_their_siblings_directly(self):
        for path in (ROOT / "hf_seqrec/metrics").glob("*_ranking.py"):
            for sibling in siblings(path):
                behind = siblings(path.with_name(f"{sibling}.py"))
                assert behind <= siblings(path), f"{path.name} imports {sibling}, which needs {behind}"


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read_pins(name: str) -> dict[str, list[Requirement]]:
    pins: dict[str, list[Requirement]] = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            assert re.fullmatch(r"==[^*]+", str(pin.specifier)), line
            pins.setdefault(normalised(pin.name), []).append(pin)
    return pins


@pytest.fixture(scope="module")
def pins() -> dict[str, list[Requirement]]:
    return read_pins("constraints.txt")


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements_of(project: dict, extra: str) -> Iterator[Requirement]:
    """Yield what an extra asks for, and what the extras of this package inside it ask for."""
    for text in project["optional-dependencies"][extra]:
        requirement = Requirement(text)
        if requirement.name == project["name"]:
            for inner in requirement.extras:
                yield from requirements_of(project, inner)
        else:
            yield requirement


def pins_for(lines: list[Requirement], python: str) -> list[Requirement]:
    return [pin for pin in lines if pin.marker is None or pin.marker.evaluate({"python_version": python})]


class TestConstraints:
    """`make` installs the extra dev, or a part, at versions that were tried, on every Python the package supports."""

    @pytest.mark.parametrize("python", PYTHONS)
    def test_each_dependency_has_one_pin_within_its_range(self, project, pins, python):
        requirements = [*map(Requirement, project["dependencies"]), *requirements_of(project, "dev")]
        assert {"torch", "pytest", "numba"} <= {requirement.name for requirement in requirements}
        for requirement in requirements:
            found = pins_for(pins.get(normalised(requirement.name), []), python)
            assert len(found) == 1, f"{requirement.name} has {len(found)} pins"
            version = str(found[0].specifier).removeprefix("==")
            assert requirement.specifier.contains(version), f"{found[0]} is not within {requirement}"

    @pytest.mark.parametrize("python", PYTHONS)
    def test_no_package_has_two_pins(self, pins, python):
        assert not [name for name, lines in pins.items() if len(pins_for(lines, python)) > 1]

    def test_what_make_demo_installs_is_part_of_dev(self, project):
        (extras,) = re.findall(r'BASE_INSTALLED\): .*\n.*"\.\[([\w,]+)\]"', (ROOT / "Makefile").read_text())
        dev = set(map(str, requirements_of(project, "dev")))
        for extra in extras.split(","):
            assert set(map(str, requirements_of(project, extra))) <= dev


class TestVersions:
    """`make test-lowest` and continuous integration try what pyproject.toml promises."""

    def test_every_lower_bound_is_what_make_test_lowest_installs(self, project):
        requirements = [*map(Requirement, project["dependencies"]), *requirements_of(project, "dev")]
        bounds = {
            normalised(requirement.name): str(requirement.specifier).replace(">=", "==")
            for requirement in requirements
            if requirement.specifier
        }
        pins = read_pins("constraints-lowest.txt")
        assert {name: str(pin.specifier) for name, (pin,) in pins.items()} == bounds

    def test_every_dependency_of_the_package_has_a_lower_bound(self, project):
        extras = [text for extra in project["optional-dependencies"].values() for text in extra]
        for requirement in map(Requirement, [*project["dependencies"], *extras]):
            is_for_types = requirement.name.startswith("types-") or requirement.name.endswith("-stubs")
            assert requirement.specifier or is_for_types or requirement.name == project["name"], requirement

    def test_continuous_integration_runs_every_python(self, project):
        jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
        assert tuple(jobs["test"]["strategy"]["matrix"]["python"]) == PYTHONS
        named = [name.rpartition(" ")[2] for name in project["classifiers"] if re.search(r"Python :: 3\.\d+", name)]
        assert set(named) <= set(PYTHONS)
        assert project["requires-python"] == f">={PYTHONS[0]}"

    def test_continuous_integration_runs_targets_of_make(self):
        text = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
        targets = set(re.findall(r"(?:make |target: )([a-z-]+)", text))
        assert targets == {"check", "test", "test-lowest", "test-newest"}
        assert targets <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def test_no_file_names_a_path_of_somebodys_machine():
    machine_path = re.compile(r"(?<![\w.:/~-])/(home|mnt|opt|root|Users|work)/|\.\./shared|[A-Z]:\\Users")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if machine_path.search(line)
    ]
    assert not found, "\n".join(found)


PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page):
    text = page.read_text(encoding="utf-8")
    linked = [page.parent / link for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text)]
    # Paths of the project in commands and prose; what a placeholder or a pattern stands for is not one.
    named = re.findall(
        r"\b(?:hf_seqrec|benchmarks|docs|trainer|dataset_scripts|model_cards)/[\w./-]*\w\b(?![<*{])", text
    )
    missing = [str(path) for path in [*linked, *(ROOT / path for path in named)] if not path.exists()]
    # `hf-seqrec train`, also as `-m hf_seqrec train`; not `hf-seqrec --help`, nor the project's name in a sentence.
    commands = re.findall(r"(?:^|`|-m )hf[-_]seqrec ([a-z][\w-]*)", text, flags=re.MULTILINE)
    missing += [f"hf-seqrec {command}" for command in commands if command not in COMMANDS]
    assert not missing
    assert "-m hf_seqrec." not in text, "modules are no commands: `hf-seqrec <command>`"
