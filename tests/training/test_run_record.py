"""A run is resumed with the data that it was trained on, or not at all."""

import pytest

from hf_seqrec.data.catalog import Catalog
from hf_seqrec.training.run_arguments import parse_run_arguments
from hf_seqrec.training.run_data import load_run_data
from hf_seqrec.training.run_folder import claim_run_folder
from hf_seqrec.training.run_record import check_same_data, read_run
from tests.training.test_run_folder import checkpoint


def log_of(counts, path):
    """Write a log in which item n is had by `counts[n]` users beside those who have them all, which is its rank."""
    events = [(f"u{user}", f"i{item}", item) for user in range(5) for item in range(len(counts))]
    events += [(f"n{item}-{number}", f"i{item}", 100) for item, count in enumerate(counts) for number in range(count)]
    path.write_text("user,item,timestamp\n" + "".join(f"{user},{item},{time}\n" for user, item, time in events))


def load(log, run, *arguments):
    parsed = parse_run_arguments(["--dataset", str(log), "--output_dir", str(run), "--max_length", "5", *arguments])
    resume = parsed.training.resume_from_checkpoint
    claim_run_folder(str(run), parsed.run_identity(), resume, parsed.training.overwrite_output_dir)
    return load_run_data(parsed)


@pytest.fixture(params=["in memory", "streamed"])
def started(request, tmp_path):
    """Begin a run on a log of four items, and leave a checkpoint."""
    log, run = tmp_path / "log.csv", tmp_path / "run"
    options = [] if request.param == "in memory" else ["--streaming", "true"]
    log_of([4, 3, 2, 1], log)
    sequences, _ = load(log, run, *options)
    sequences.catalog.save(checkpoint(run, 7))
    return log, run, [*options, "--resume_from_checkpoint", "true"]


def test_the_same_data_in_a_file_of_another_time(started):
    log, run, options = started
    text = log.read_text()
    log.write_text(text)
    sequences, _ = load(log, run, *options)
    assert sequences.catalog.item_ids.to_pylist() == ["i0", "i1", "i2", "i3"]
    assert read_run(run)["data"]["catalog"] == sequences.catalog.fingerprint()


def test_a_log_in_which_other_items_are_popular(started):
    log, run, options = started
    log_of([4, 3, 2, 9], log)
    with pytest.raises(
        ValueError, match=r"have changed \(catalog: \w+ there, \w+ here.*`--dataset .*`hf-seqrec extend`"
    ):
        load(log, run, *options)
    # What was built stays, and the run can be resumed with it.
    assert Catalog.from_pretrained(run / "dataset").item_ids.to_pylist() == ["i0", "i1", "i2", "i3"]
    sequences, _ = load(run / "dataset", run, *options)
    assert sequences.catalog.item_ids.to_pylist() == ["i0", "i1", "i2", "i3"]


def test_the_same_items_with_other_histories(started):
    log, run, options = started
    log.write_text(log.read_text() + "u0,i0,200\n")
    with pytest.raises(ValueError, match=r"have changed \(training events: \d+ there, \d+ here, training histories:"):
        load(log, run, *options)


def test_another_split(started):
    _, run, _ = started
    data = read_run(run)["data"]
    with pytest.raises(ValueError, match=r"have changed \(held out: leave-one-out .* there, a cut here\)"):
        check_same_data(run / "checkpoint-7", data, data | {"held out": "a cut"})


def test_a_run_that_recorded_no_data_has_the_catalog_of_its_checkpoint(started):
    log, run, options = started
    (run / "run.json").write_text('{"model_type": "mamba4rec"}')
    load(log, run, *options)
    (run / "run.json").write_text('{"model_type": "mamba4rec"}')
    log_of([4, 3, 2, 9], log)
    with pytest.raises(ValueError, match=r"have changed \(catalog:"):
        load(log, run, *options)


def test_more_workers_share_a_stream_out_in_another_order(tmp_path):
    log, run = tmp_path / "log.csv", tmp_path / "run"
    log_of([4, 3, 2, 1], log)
    load(log, run, "--streaming", "true")
    checkpoint(run, 7)
    with pytest.raises(ValueError, match=r"processes and their workers: 1 x 1 there, 1 x 2 here"):
        load(log, run, "--streaming", "true", "--resume_from_checkpoint", "true", "--dataloader_num_workers", "2")
