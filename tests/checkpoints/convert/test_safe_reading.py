import os
import pickle
import sys
import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

from hf_seqrec.checkpoints.convert.safe_reading import InertUnpickler, read_checkpoint
from tests.checkpoints.convert.authors_checkpoints import save_as_recbole

WEIGHTS = OrderedDict(
    {
        "whole.weight": torch.arange(6.0).reshape(2, 3),
        "turned.weight": torch.arange(6.0).reshape(2, 3).T,
        "second_row.weight": torch.arange(6.0).reshape(2, 3)[1],
        "half": torch.arange(3, dtype=torch.bfloat16),
        "counts": torch.arange(3),
        "empty": torch.ones(0, 4),
    }
)


def assert_weights(weights):
    assert weights.keys() == WEIGHTS.keys()
    for name, weight in weights.items():
        assert weight.dtype == WEIGHTS[name].dtype
        assert torch.equal(weight, WEIGHTS[name]), name


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


class TestGood:
    @pytest.mark.parametrize("as_archive", [True, False])
    def test_bare_state_dicts(self, tmp_path, as_archive):
        torch.save(WEIGHTS, tmp_path / "x.pth", _use_new_zipfile_serialization=as_archive)
        checkpoint = read_checkpoint(tmp_path / "x.pth")
        assert_weights(checkpoint.weights)
        assert checkpoint.hyper_parameters == {}
        assert checkpoint.item_ids is None

    def test_recbole(self, tmp_path, monkeypatch):
        path = save_as_recbole(monkeypatch, tmp_path / "x.pth", WEIGHTS, model="Mamba4Rec", d_state=32, loss_type="CE")
        # Why there is a reader of our own: torch's does not know the protocol.
        with pytest.raises(pickle.UnpicklingError), pytest.warns(UserWarning, match="pickle protocol 4"):
            torch.load(path, weights_only=True)
        checkpoint = read_checkpoint(path)
        assert_weights(checkpoint.weights)
        assert checkpoint.hyper_parameters == {"model": "Mamba4Rec", "d_state": 32, "loss_type": "CE"}

    def test_parameters(self, tmp_path, monkeypatch):
        weights = {"w": torch.nn.Parameter(torch.ones(2))}
        path = save_as_recbole(monkeypatch, tmp_path / "x.pth", weights, model="Mamba4Rec")
        assert torch.equal(read_checkpoint(path).weights["w"], torch.ones(2))

    def test_a_member_of_an_enumeration_as_some_pythons_write_it(self):
        # {"type": getattr(recbole.utils.enum_type.ModelType, "SEQUENTIAL"), "d_state": 32}
        member = b"cbuiltins\ngetattr\n(crecbole.utils.enum_type\nModelType\nS'SEQUENTIAL'\ntR"
        loaded = InertUnpickler(b"(dS'type'\n" + member + b"sS'd_state'\nI32\ns.").load()
        assert loaded["d_state"] == 32
        assert type(loaded["type"]).__module__ == InertUnpickler.__module__

    def test_the_way_out_of_a_refusal(self, tmp_path):
        plain = {"state_dict": WEIGHTS, "config": {"model": "GRU4Rec", "topk": [10]}, "item_ids": ["[PAD]", "a"]}
        torch.save(plain, tmp_path / "plain.pth")
        checkpoint = read_checkpoint(tmp_path / "plain.pth")
        assert_weights(checkpoint.weights)
        assert checkpoint.hyper_parameters == {"model": "GRU4Rec"}
        assert checkpoint.item_ids == ["[PAD]", "a"]


class TestHostile:
    @pytest.mark.parametrize("protocol", [2, 4])
    @pytest.mark.parametrize("as_archive", [True, False])
    @pytest.mark.parametrize("place", ["config", "state_dict", "optimizer"])
    def test_nothing_is_run(self, tmp_path, protocol, as_archive, place):
        marker, path = tmp_path / "was here", tmp_path / "x.pth"
        checkpoint = {"config": {}, "state_dict": dict(WEIGHTS), "optimizer": {}}
        checkpoint[place]["x"] = Payload(marker)
        torch.save(checkpoint, path, pickle_protocol=protocol, _use_new_zipfile_serialization=as_archive)
        # The payload works: who believes the file makes it run.
        torch.load(path, weights_only=False)
        assert marker.is_dir()
        marker.rmdir()
        with pytest.raises(
            ValueError, match=f"{os.mkdir.__module__}.mkdir" if as_archive else "nothing of it was run"
        ):
            read_checkpoint(path)
        assert not marker.exists()

    def test_the_refusal_says_what_and_the_way_out(self, tmp_path):
        torch.save({"state_dict": Payload(tmp_path / "was here")}, tmp_path / "x.pth", pickle_protocol=4)
        with pytest.raises(
            ValueError,
            match=rf"asks for `{os.mkdir.__module__}\.mkdir`, which .*nothing of the file was run.*final_config_dict",
        ):
            read_checkpoint(tmp_path / "x.pth")

    @pytest.mark.parametrize(
        "program",
        [
            # A name behind a known one.
            b"\x80\x04\x8c\x0bcollections\x8c\x0bOrderedDict\x8c\x08fromkeys\x93.",
            b"\x80\x04\x8c\x0bcollections\x8c\x16OrderedDict.__class__.x\x93.",
            # `getattr` and `eval` by other roads.
            b"\x80\x02cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
            b"(S'1'\nibuiltins\neval\n.",
            b"\x80\x02(cbuiltins\neval\nX\x01\x00\x00\x001o.",
            b"\x80\x02\x82\x01.",
            # Attributes of functions and classes that are ours.
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00xK\x01sb.",
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x0c\x00\x00\x00__defaults__)s\x86b.",
            b"\x80\x02ccollections\nOrderedDict\n}X\x01\x00\x00\x00xK\x01sb.",
            b"\x80\x02ctorch\ndevice\nN}X\x01\x00\x00\x00xK\x01s\x86b.",
        ],
    )
    def test_programs_by_hand(self, program):
        stand_ins = dict(vars(sys.modules[InertUnpickler.__module__]))
        with pytest.raises((pickle.UnpicklingError, TypeError, ValueError)):
            InertUnpickler(program).load()
        after = vars(sys.modules[InertUnpickler.__module__])
        assert all(after[name] is value for name, value in stand_ins.items())
        assert not any(hasattr(stand_ins[name], "x") for name in ("_Inert", "_Dict", "_Rebuild"))

    def test_what_is_known_by_name_is_not_the_real_thing(self):
        # Were it imported, the module of this name would tell.
        device = InertUnpickler(
            b"\x80\x02crecbole.config.configurator\nConfig\n)\x81}X\x01\x00\x00\x00aK\x01sb."
        ).load()
        assert type(device).__module__ == InertUnpickler.__module__
        assert device.state == {"a": 1}
        assert "recbole" not in sys.modules

    def test_what_stands_for_getattr_gets_nothing(self):
        # getattr(OrderedDict, "fromkeys")("ab")
        program = b"cbuiltins\ngetattr\n(ccollections\nOrderedDict\nS'fromkeys'\ntR(S'ab'\ntR."
        with pytest.raises(TypeError, match="not callable"):
            InertUnpickler(program).load()

    def test_a_tensor_beyond_its_numbers(self, tmp_path, monkeypatch):
        path = save_as_recbole(monkeypatch, tmp_path / "x.pth", {"w": torch.arange(4.0)}, model="Mamba4Rec")
        with zipfile.ZipFile(path) as archive:
            records = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in records.items():
                archive.writestr(name, data[:8] if name.endswith("/data/0") else data)
        with pytest.raises(ValueError, match="is damaged, or no checkpoint"):
            read_checkpoint(path)


class TestOtherFiles:
    def refuses(self, path, match):
        with pytest.raises(ValueError, match=match):
            read_checkpoint(path)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            read_checkpoint(tmp_path / "x.pth")

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            (b"", "is empty"),
            (b"epoch 1: loss 2.5\n", "is not a checkpoint: `torch.save` does not write files that begin with b'epoch"),
            (b"\x80", "is damaged, or holds more than weights"),
            (b"\x80\x02}q\x00.", "is damaged, or holds more than weights"),
            (b"PK\x03\x04 and no more", "is cut short or damaged"),
        ],
    )
    def test_bytes(self, tmp_path, content, match):
        (tmp_path / "x.pth").write_bytes(content)
        self.refuses(tmp_path / "x.pth", match)

    def test_safetensors(self, tmp_path):
        save_file({"w": torch.ones(2)}, tmp_path / "x.safetensors")
        self.refuses(tmp_path / "x.safetensors", "is a safetensors file")

    def test_another_zip(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.writestr("a/letter.txt", "Dear")
        self.refuses(tmp_path / "x.zip", "not one that `torch.save` wrote")

    def test_torchscript(self, tmp_path):
        # As `torch.jit.save` lays it out.
        with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
            for name in ("data.pkl", "constants.pkl", "code/__torch__.py", "version"):
                archive.writestr(f"x/{name}", "")
        self.refuses(tmp_path / "x.pt", "is a TorchScript program")

    @pytest.mark.parametrize("left", [0.3, 0.9, 0.999])
    @pytest.mark.parametrize("as_archive", [True, False])
    def test_cut_short(self, tmp_path, left, as_archive):
        path = tmp_path / "x.pth"
        torch.save({"w": torch.ones(500)}, path, _use_new_zipfile_serialization=as_archive)
        content = path.read_bytes()
        path.write_bytes(content[: int(left * len(content))])
        self.refuses(path, "cut short|damaged")

    @pytest.mark.parametrize(
        ("holds", "match"),
        [
            (torch.ones(2), "holds a Tensor, expected the dict of a model's weights"),
            ({}, "holds no weights: .*found an empty dict"),
            ({"epoch": 3}, "holds no weights: .*found epoch"),
            ({"state_dict": [1]}, "holds no weights: .*found state_dict"),
        ],
    )
    def test_no_weights(self, tmp_path, holds, match):
        torch.save(holds, tmp_path / "x.pth")
        self.refuses(tmp_path / "x.pth", match)

    def test_a_pickled_model(self, tmp_path):
        torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pth")
        self.refuses(tmp_path / "x.pth", r"asks for `torch\.nn\.modules\.linear\.Linear`.*If you trust it")
