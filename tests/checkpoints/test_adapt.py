import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, set_seed

import hf_seqrec
from hf_seqrec.checkpoints.adapt import adapt_to_catalog
from hf_seqrec.checkpoints.load import load_checkpoint
from hf_seqrec.data.catalog import Catalog
from hf_seqrec.data.catalog_change import change_of_catalog
from hf_seqrec.data.histories import HistoryDataset
from hf_seqrec.data.leave_one_out import leave_one_out
from tests.helpers import sequences_of, small_model

OLD = Catalog.from_items(["a", "b", "c", "d"], count=[9, 8, 7, 6], title=["A", "B", "C", "D"])
# b and d are known, x and y new, a and c vanished.
NEW = Catalog.from_items(["x", "d", "y", "b"], count=[4, 3, 2, 1], title=["X", "new D", "Y", "new B"])


def model_of(model_type):
    """Make a seeded model of OLD's items, every parameter of which has values of its own."""
    set_seed(0)
    vocab_size = hf_seqrec.config_class(model_type).vocab_size_for(OLD.n_items)
    model = AutoModel.from_config(AutoConfig.for_model(model_type, vocab_size=vocab_size, hidden_size=16)).eval()
    for name, table in model.item_tables().items():
        table.data[1:] = torch.randn_like(table.data[1:]) * 0.1
        if name == "output_bias":
            table.data[1:] = torch.arange(1.0, 5.0)
    return model


class TestChangeOfCatalog:
    def test_dropped(self):
        change = change_of_catalog(OLD, NEW)
        assert change.catalog is NEW
        assert change.old_rows.tolist() == [0, 4, 0, 2]
        assert (change.n_known, change.n_new, change.n_vanished, change.n_kept_vanished) == (2, 2, 2, 0)
        assert str(change) == (
            "2 of the 4 items of the model are in the new catalog, 2 items are new, 2 have vanished and are dropped"
        )

    def test_kept_behind_the_new_ones(self):
        change = change_of_catalog(OLD, NEW, keep_vanished=True)
        assert change.old_rows.tolist() == [0, 4, 0, 2, 1, 3]
        assert (change.n_known, change.n_new, change.n_vanished, change.n_kept_vanished) == (2, 2, 2, 2)
        assert change.catalog.item_ids.to_pylist() == ["x", "d", "y", "b", "a", "c"]
        assert change.catalog.titles == ["X", "new D", "Y", "new B", "A", "C"]
        assert change.catalog.counts.tolist() == [4, 3, 2, 1, 0, 0]

    def test_columns_that_only_one_of_the_two_has(self):
        old = Catalog.from_items(["a", "b"], title=["A", "B"])
        new = Catalog.from_items(["b"], genre=["Drama"])
        kept = change_of_catalog(old, new, keep_vanished=True).catalog
        assert kept.table.drop(["row", "count"]).to_pylist() == [
            {"item_id": "b", "genre": "Drama", "title": "B"},
            {"item_id": "a", "genre": None, "title": "A"},
        ]

    def test_nothing_in_common(self):
        with pytest.raises(
            ValueError, match=r"of 4 items \(such as 'a'\) .* of 2 \(such as '1'\) share no raw item id"
        ):
            change_of_catalog(OLD, Catalog.from_items(["1", "2"]))


class TestEveryModel:
    @pytest.mark.parametrize("model_type", hf_seqrec.MODEL_TYPES)
    def test_known_items_keep_their_scores(self, model_type):
        model = model_of(model_type)
        # Histories of b and d, rows 2 and 4 before and rows 4 and 2 after.
        before = model(torch.tensor([[2, 4, 2]])).logits
        encoder = {name: p.clone() for name, p in model.named_parameters() if name not in model.item_tables()}
        adapt_to_catalog(model, OLD, NEW, keep_vanished=True)
        after = model(torch.tensor([[4, 2, 4]])).logits
        assert model.config.n_items == 6
        torch.testing.assert_close(after[:, [4, 2, 5, 6]], before[:, [2, 4, 1, 3]])
        for name, parameter in encoder.items():
            assert torch.equal(model.get_parameter(name), parameter), name

    @pytest.mark.parametrize("model_type", hf_seqrec.MODEL_TYPES)
    def test_saved_and_loaded(self, model_type, tmp_path):
        model = model_of(model_type)
        adapt_to_catalog(model, OLD, NEW).catalog.save(tmp_path)
        model.save_pretrained(tmp_path)
        loaded, catalog = load_checkpoint(tmp_path)
        assert catalog.item_ids.equals(NEW.item_ids)
        history = torch.tensor([[1, 2, 3]])
        torch.testing.assert_close(loaded(history).logits, model(history).logits)
        assert loaded.item_embeddings.num_embeddings == len(loaded.item_embeddings.weight) == loaded.config.vocab_size

    def test_the_bias_and_the_mask_row_of_bert4rec(self):
        model = model_of("bert4rec")
        mask = model.item_embeddings.weight[model.config.mask_row].clone()
        adapt_to_catalog(model, OLD, NEW)
        # 2.5 is the mean of 1, 2, 3, 4.
        assert model.output_bias.tolist() == [0.0, 2.5, 4.0, 2.5, 2.0]
        assert model.config.mask_row == 5
        assert torch.equal(model.item_embeddings.weight[5], mask)
        assert not model.item_embeddings.weight[0].any()

    def test_it_learns_afterwards(self):
        model = model_of("bert4rec").train()
        adapt_to_catalog(model, OLD, NEW, keep_vanished=True)
        labels = torch.tensor([[-100, 6]])
        model(torch.tensor([[1, model.config.mask_row]]), labels=labels).loss.backward()
        for name, table in model.item_tables().items():
            assert table.grad.shape == table.shape, name
            assert table.grad[6].any()


class TestNewItems:
    def test_mean(self):
        model = small_model(5)
        known = model.item_embeddings.weight[1:].clone()
        adapt_to_catalog(model, OLD, NEW)
        for row in (1, 3):
            torch.testing.assert_close(model.item_embeddings.weight[row], known.mean(dim=0))

    def test_random_is_seeded_and_as_long_as_a_known_item(self):
        old = Catalog.from_items([str(item) for item in range(500)])
        new = Catalog.from_items([str(item) for item in range(250, 1000)])
        tables = []
        for seed in (0, 0, 1):
            model = small_model(501)
            norms = model.item_embeddings.weight[1:].norm(dim=1)
            adapt_to_catalog(model, old, new, new_items="random", seed=seed)
            tables.append(model.item_embeddings.weight[251:])
        assert torch.equal(tables[0], tables[1])
        assert not torch.equal(tables[0], tables[2])
        assert tables[0].norm(dim=1).mean().item() == pytest.approx(norms.mean().item(), rel=0.05)

    def test_cooccurrence_by_hand(self):
        # Rows of NEW: x 1, d 2, y 3, b 4. x stands beside d twice and beside b once; y beside nothing that is known.
        sequences = sequences_of([2, 1, 2], [1, 4], [3, 3], [2, 2], n_items=4)
        starts, stops = sequences.offsets[:-1], sequences.offsets[1:]
        histories = HistoryDataset(sequences, np.arange(4), starts, stops, has_targets=False)
        model = small_model(5)
        a, b, c, d = model.item_embeddings.weight[1:].clone()
        adapt_to_catalog(model, OLD, NEW, new_items="cooccurrence", histories=histories)
        x, new_d, y, new_b = model.item_embeddings.weight[1:]
        # Four events of d in all, one of b.
        expected = 2 / 4**0.5 * d + 1 / 1**0.5 * b
        torch.testing.assert_close(x / x.norm(), expected / expected.norm())
        assert x.norm().item() == pytest.approx(0.9 * torch.stack([a, b, c, d]).norm(dim=1).median().item())
        torch.testing.assert_close(y, torch.stack([a, b, c, d]).mean(dim=0))
        assert torch.equal(new_d, d)
        assert torch.equal(new_b, b)

    def test_errors(self):
        with pytest.raises(ValueError, match=r"`new_items` must be one of mean, cooccurrence, random, got 'zero'"):
            adapt_to_catalog(small_model(5), OLD, NEW, new_items="zero")
        with pytest.raises(ValueError, match="`histories` must be given with `new_items='cooccurrence'`"):
            adapt_to_catalog(small_model(5), OLD, NEW, new_items="cooccurrence")
        with pytest.raises(ValueError, match="The old catalog has 4 items, but the model has 12"):
            adapt_to_catalog(small_model(13), OLD, NEW)
        with pytest.raises(ValueError, match=r"The old catalog \(fingerprint \w+\) is not the model's \(0123\)"):
            adapt_to_catalog(small_model(5, catalog_fingerprint="0123"), OLD, NEW)
        histories = leave_one_out(sequences_of([5, 6, 7, 8], n_items=9)).train
        with pytest.raises(ValueError, match=r"`histories` must be in the rows 1\.\.4 of the new catalog, got row 6"):
            adapt_to_catalog(small_model(5), OLD, NEW, new_items="cooccurrence", histories=histories)


class TestReplaceItems:
    def test_shapes_that_do_not_fit(self):
        model = model_of("bert4rec")
        values = torch.zeros(3, 16)
        for tables in (
            {"item_embeddings.weight": values},
            {"item_embeddings.weight": values, "output_bias": torch.zeros(2)},
            {"item_embeddings.weight": values[:, 1:], "output_bias": torch.zeros(3)},
        ):
            with pytest.raises(
                ValueError, match=r"`tables` must hold as many rows of each of item_embeddings\.weight"
            ):
                model.replace_items(tables)


@pytest.mark.parametrize("keep_vanished", [False, True])
def test_titles_survive_a_catalog_without(keep_vanished):
    old = Catalog.from_items(["a", "b", "c"], title=["A", "B", "C"])
    change = change_of_catalog(old, Catalog.from_items(["c", "d"]), keep_vanished)
    assert change.catalog.titles == ["C", "d"] + (["A", "B"] if keep_vanished else [])
