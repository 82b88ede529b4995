"""The command: what it lists, what it imports, and what becomes of a mistake, whichever command it is made in."""

import importlib.metadata
import io
import os
import subprocess
import sys
import time

import pytest

import hf_seqrec
from hf_seqrec import cli
from hf_seqrec.argument_parser import CommandParser
from hf_seqrec.cli import COMMANDS, main
from hf_seqrec.cli.options import add_switch
from hf_seqrec.hub.upload import PushError
from hf_seqrec.installing import EXTRA_OF_MODULE, install_hint
from tests.helpers import small_model, walks


def started(*words, **environment):
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "hf_seqrec", *words],
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=os.environ | environment,
        check=False,
    )


class TestOverview:
    def test_names_every_command_with_an_example(self, capsys):
        assert main(["--help"]) == 0
        printed = capsys.readouterr().out
        for name, command in COMMANDS.items():
            assert f"  {name} " in printed
            assert command.help in printed
            assert f"hf-seqrec {name} {command.example}" in printed
        assert len(printed.splitlines()) < 40
        assert max(map(len, printed.splitlines())) <= 80
        assert main([]) == 0
        assert capsys.readouterr().out == printed

    def test_imports_nothing_heavy(self):
        script = "from hf_seqrec.cli import main; main(['--help']); import sys; print(*sys.modules, file=sys.stderr)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        loaded = set(done.stderr.split())
        assert not loaded & {"torch", "transformers", "numpy", "pyarrow", "huggingface_hub", "yaml", "argparse"}

    def test_the_version(self, capsys):
        assert main(["--version"]) == 0
        assert capsys.readouterr().out == f"hf-seqrec {hf_seqrec.__version__}\n"

    def test_there_is_a_file_for_each_command(self):
        folder = os.path.dirname(cli.__file__)
        assert {f"{name.replace('-', '_')}.py" for name in COMMANDS} <= set(os.listdir(folder))

    def test_the_script_of_the_package_is_this_command(self):
        scripts = importlib.metadata.entry_points(group="console_scripts", name="hf-seqrec")
        if not scripts:
            pytest.skip("the package was installed before it had a script")
        assert {script.load() for script in scripts} == {main}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_has_an_example(name, capsys):
    pytest.importorskip("fastapi" if name == "serve" else "torch")
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: hf-seqrec {name} ")
    assert f"    hf-seqrec {name} " in printed.replace("hf-seqrec train  ", "hf-seqrec train ")
    # Every option says what it is.
    assert not [line for line in printed.splitlines() if line.startswith("  --") and line.endswith("(default: None)")]


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoint"
    small_model(13).save_pretrained(folder)
    walks().catalog.save(folder)
    return str(folder)


MISTAKES = {
    "no such command": ("trian", "there is no command 'trian'. Did you mean `train`?"),
    "nothing like it": ("xyzzy", "`hf-seqrec --help` lists them"),
    "an unknown option": (
        "recommend {checkpoint} --histroy 1",
        "unrecognized arguments: --histroy 1. Did you mean `--history`?",
    ),
    "a missing argument": ("recommend", "the following arguments are required: checkpoint"),
    "a wrong type": ("recommend {checkpoint} --history id-1 --top_k many", "invalid int value: 'many'"),
    "a wrong choice": ("index {checkpoint} --kind tree", "invalid choice: 'tree'"),
    "no checkpoint": ("recommend {tmp}/none --history 1", "is no folder, nor a model on the Hub"),
    "no dataset of the user": ("recommend {checkpoint} --user 7 --dataset {tmp}", "must be a dataset folder"),
    "an option that a record lacks": ("evaluate {checkpoint} --resamples 9", "Did you mean `--n_resamples`?"),
    "more than there are": ("recommend {checkpoint} --history id-1 --top_k 100", "`top_k` must be"),
    "no such dataset": ("evaluate {checkpoint} --dataset {tmp}/none.csv", "there is none at"),
    "no resamples": ("evaluate {checkpoint} --n_resamples 0", "`n_resamples` must be at least 1, got 0"),
    "no such device": ("evaluate {checkpoint} --device abacus", "`--device` must be one that torch can use"),
    "no such port": ("serve {checkpoint} --port 80000", "`--port` must be between 1 and 65535, got 80000"),
    "no such port of a page": ("demo {checkpoint} --port 0", "`--port` must be between 1 and 65535, got 0"),
    "an output that is taken": ("adapt {checkpoint} --catalog {tmp} --output {checkpoint}", "`output` must be new"),
    "no log": ("build {tmp}/none.csv --output {tmp}/out", "nothing at"),
    "no log to add": ("extend {tmp}/none.csv --output {tmp}/out", "nothing at"),
    "nothing to convert": ("convert {tmp}/none.pth --output {tmp}/out", "none.pth"),
    "nothing to push": ("push {tmp}/none org/name", "`what` must be a checkpoint folder"),
    "no results": ("card {tmp}/none.json", "No such file or directory"),
    "an endpoint of nothing": ("endpoint {tmp}", "is not a checkpoint folder"),
    "an export of nothing": ("export-onnx {tmp} --output {tmp}/x.onnx", "is not a checkpoint folder"),
    "an unknown argument of a run": (
        "train --hiden_size 8 --output_dir {tmp}/run",
        "Unknown arguments in the command",
    ),
    "an unknown recipe": ("train --config ml-1m/mamba5rec", "There are beauty/mamba4rec,"),
    "a wrong choice of a run": ("train --loss hinge", "invalid choice: 'hinge'"),
    "a network that cannot be": ("train --hidden_size 0 --output_dir {tmp}/run", "`hidden_size` must be"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(mistake, checkpoint, tmp_path, capsys, monkeypatch):
    pytest.importorskip("fastapi" if mistake == "no such port" else "torch")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    command, message = MISTAKES[mistake]
    before = sorted(tmp_path.rglob("*"))
    assert main(command.format(checkpoint=checkpoint, tmp=tmp_path).split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = [line for line in printed.err.splitlines() if line and not line.startswith("Loading weights")]
    assert len(lines) == 1, printed.err
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def raising(monkeypatch):
    """Have `hf-seqrec card` raise an error, and return the exit code."""

    def raising(error, *words):
        def fail(command_line):
            raise error

        monkeypatch.setattr("hf_seqrec.cli.card.main", fail)
        return main([*words, "card"])

    return raising


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "line"),
        [
            (ValueError("two\n  lines"), "two lines"),
            (PermissionError(13, "Permission denied", "x"), "[Errno 13] Permission denied: 'x'"),
            (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
            (PushError("The Hub did not take it."), "The Hub did not take it."),
            (ImportError(f"This needs FAISS: {install_hint('ann')}."), "This needs FAISS: "),
            (
                ModuleNotFoundError("No module named 'ibis'", name="ibis"),
                'this needs ibis, which is not installed: pip install "hf-seqrec[data]"',
            ),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_a_users(self, raising, capsys, error, line):
        assert raising(error) == 2
        assert capsys.readouterr().err.startswith(f"error: {line}")
        assert raising(error, "--debug") == 2
        assert "Traceback" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "error",
        [KeyError("x"), TypeError("unsupported operand"), ModuleNotFoundError("No module named 'x'", name="x")],
        ids=lambda error: type(error).__name__,
    )
    def test_a_fault_of_ours_has_a_traceback(self, raising, capsys, error):
        assert raising(error) == 1
        assert "Traceback" in capsys.readouterr().err

    def test_a_type_error_of_ours_is_a_users(self, capsys, monkeypatch):
        """One that names the argument, raised in this package: the session's file is no such thing."""
        from hf_seqrec.data.catalog import Catalog

        monkeypatch.setattr("hf_seqrec.cli.card.main", lambda words: Catalog.from_items(["a"]).encode("a"))
        assert main(["card"]) == 2
        assert capsys.readouterr().err.startswith("error: ")

    def test_an_interrupt(self, raising, capsys):
        assert raising(KeyboardInterrupt()) == 130
        assert capsys.readouterr().err == ""

    def test_other_processes_wait_for_the_main_one(self, raising, capsys, monkeypatch):
        waited = []
        monkeypatch.setattr(time, "sleep", waited.append)
        monkeypatch.setenv("RANK", "3")
        assert raising(ValueError("no file")) == 2
        assert capsys.readouterr().err == "error: no file (process 3)\n"
        assert waited == [2.0]

    def test_debug_of_transformers_is_left_alone(self):
        words = ["train", "--debug", "underflow_overflow", "--debug"]
        assert cli._take_debug(words)
        assert words == ["train", "--debug", "underflow_overflow"]


def test_extras_that_messages_name_exist():
    known = set(importlib.metadata.metadata("hf-seqrec").get_all("Provides-Extra") or [])
    assert set(EXTRA_OF_MODULE.values()) <= known
    assert install_hint("serve") == 'pip install "hf-seqrec[serve]"'


def test_a_console_that_lacks_characters(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", console)
    monkeypatch.setattr("hf_seqrec.cli.card.main", lambda words: print("千与千寻 é"))
    assert main(["card"]) == 0
    console.flush()
    assert console.buffer.getvalue().split() == [rb"\u5343\u4e0e\u5343\u5bfb", "é".encode("cp1252")]


def test_a_reader_that_has_enough():
    done = subprocess.run(
        f'"{sys.executable}" -m hf_seqrec --help | true', shell=True, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


def test_as_a_module():
    done = started("trian")
    assert done.returncode == 2
    assert done.stderr == "error: there is no command 'trian'. Did you mean `train`?\n"


class TestParser:
    def parser(self):
        parser = CommandParser("hf-seqrec test", "Do it.\n\n    hf-seqrec test")
        parser.add_argument("what")
        parser.add_argument("--ids", nargs="+")
        parser.add_argument("--number", type=float)
        add_switch(parser, "keep_all")
        return parser

    def test_switches(self):
        for words, expected in (
            ([], False),
            (["--keep_all"], True),
            (["--no-keep-all"], False),
            (["--keep-all"], True),
        ):
            assert self.parser().parse_args(["x", *words]).keep_all is expected

    def test_values_that_begin_with_a_dash(self):
        parsed = self.parser().parse_args(["-x", "--ids", "-1", "-i2", "-h3", "--number", "-0.5"])
        assert (parsed.what, parsed.ids, parsed.number) == ("-x", ["-1", "-i2", "-h3"], -0.5)

    def test_mistakes_are_value_errors(self):
        with pytest.raises(
            ValueError, match=r"invalid float value: 'x'\. `hf-seqrec test --help` lists the options\."
        ):
            self.parser().parse_args(["x", "--number", "x"])
