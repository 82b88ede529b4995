import dataclasses

import pytest
from transformers import PreTrainedConfig

from hf_seqrec.models import MODEL_TYPES, config_class
from hf_seqrec.models.configuration_seqrec import SeqRecConfig
from hf_seqrec.training.recipes import recipe_names
from hf_seqrec.training.run_arguments import parse_run_arguments
from hf_seqrec.training.run_record import differences

WITH_POSITIONS = {"bert4rec", "moematrrec", "recmamba", "sasrec"}


def recipe(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return str(path)


def test_defaults():
    arguments = parse_run_arguments(["--output_dir", "x"])
    assert arguments.model.model_type == "mamba4rec"
    assert arguments.data.dataset == "synthetic"
    assert arguments.network["state_size"] == 32
    assert arguments.training.metric_for_best_model == "ndcg@10"
    assert "vocab_size" not in arguments.network


def test_the_command_line_wins_over_the_recipe(tmp_path):
    path = recipe(tmp_path, "hidden_size: 32\nstate_size: 8\nlearning_rate: 5.0e-4\nload_best_model_at_end: false\n")
    arguments = parse_run_arguments(["--config", path, "--state_size", "16", "--output_dir", "x"])
    assert arguments.network["hidden_size"] == 32
    assert arguments.network["state_size"] == 16
    assert arguments.training.learning_rate == 5e-4
    assert arguments.training.load_best_model_at_end is False


def test_null_in_a_recipe_switches_off(tmp_path):
    path = recipe(tmp_path, "early_stopping_patience: null\noutput_dir: x\n")
    assert parse_run_arguments(["--config", path]).training.early_stopping_patience is None


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_parses_and_is_what_its_name_says(name):
    dataset, model_type = name.split("/")
    arguments = parse_run_arguments(["--config", name])
    assert arguments.model.model_type == model_type
    assert arguments.data.dataset.split("/")[-1] == dataset
    positions = arguments.network["max_position_embeddings"]
    assert positions == (arguments.training.max_length if model_type in WITH_POSITIONS else None)


def test_positions_follow_the_length():
    recipe = ["--config", "ml-1m/sasrec"]
    assert parse_run_arguments(recipe).network["max_position_embeddings"] == 200
    assert parse_run_arguments([*recipe, "--max_length", "300"]).network["max_position_embeddings"] == 300
    chosen = [*recipe, "--max_position_embeddings", "250"]
    assert parse_run_arguments(chosen).network["max_position_embeddings"] == 250
    with pytest.raises(ValueError, match="`max_length` must be at most `max_position_embeddings`, 250, got 300"):
        parse_run_arguments([*chosen, "--max_length", "300"])


def test_no_and_yes_in_a_recipe_are_words(tmp_path):
    path = recipe(tmp_path, "eval_strategy: no\nsave_strategy: no\nload_best_model_at_end: no\nbf16: off\n")
    training = parse_run_arguments(["--config", path]).training
    assert training.eval_strategy == "no"
    assert training.load_best_model_at_end is False


@pytest.mark.parametrize(
    ("given", "overwrite", "shared"),
    [
        ([], False, None),
        (["--overwrite_output_dir"], True, None),
        (["--overwrite_output_dir", "true", "--share_negatives"], True, True),
        (["--overwrite-output-dir", "--no_share_negatives"], True, False),
        (["--overwrite_output_dir", "--no-overwrite-output-dir", "--share_negatives", "false"], False, False),
    ],
)
def test_switches(given, overwrite, shared):
    training = parse_run_arguments(["--loss", "bce", *given]).training
    assert (training.overwrite_output_dir, training.share_negatives) == (overwrite, shared)


def test_unknown_arguments(tmp_path):
    with pytest.raises(
        ValueError, match=r"or the command line, for mamba4rec: --hiden_size 32\. Did you mean `--hidden_size`"
    ):
        parse_run_arguments(["--config", recipe(tmp_path, "hiden_size: 32\n"), "--output_dir", "x"])


def test_no_in_a_recipe_is_the_strategy(tmp_path):
    lines = ["eval_strategy: no", "save_strategy: no", "load_best_model_at_end: false", "streaming: no"]
    training = parse_run_arguments(["--config", recipe(tmp_path, "\n".join(lines))]).training
    assert (training.eval_strategy, training.save_strategy) == ("no", "no")
    assert (training.load_best_model_at_end, training.streaming) == (False, False)


def test_wrong_types(tmp_path):
    with pytest.raises(ValueError, match="invalid int value: 'wide'"):
        parse_run_arguments(["--config", recipe(tmp_path, "hidden_size: wide\n"), "--output_dir", "x"])


def test_unknown_model():
    with pytest.raises(ValueError, match="mamba5rec"):
        parse_run_arguments(["--model_type", "mamba5rec", "--output_dir", "x"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_length", "0"),
        ("early_stopping_patience", "0"),
        ("window", "first"),
        ("window_stride", "5"),
        ("split", "random"),
        ("test_from", "0.9"),
        ("keep_cold_targets", "true"),
        ("train_sampling_strategy", "sequential"),
        ("loss", "hinge"),
        ("train_on", "first_position"),
        ("negatives_distribution", "hard"),
        ("streaming_buffer_size", "0"),
        ("streaming_eval_users", "0"),
    ],
)
def test_values_out_of_range(name, value):
    with pytest.raises(ValueError, match=name):
        parse_run_arguments([f"--{name}", value, "--output_dir", "x"])


def test_what_is_held_out():
    arguments = parse_run_arguments(
        ["--split", "global_time", "--validation_from", "0.7", "--test_from", "2003-01-31"]
    )
    assert (arguments.data.validation_from, arguments.data.test_from) == ("0.7", "2003-01-31")
    assert arguments.run_identity().recorded["split"] == "global_time"
    assert arguments.data.log_options() == {}


def test_strides_go_with_sliding_windows():
    sliding = ["--window", "sliding", "--max_length", "10", "--window_stride"]
    assert parse_run_arguments([*sliding, "5"]).training.window_stride == 5
    with pytest.raises(ValueError, match="between 1 and `max_length`, 10, got 11"):
        parse_run_arguments([*sliding, "11"])
    with pytest.raises(ValueError, match="must come with `--window sliding`, got 'last'"):
        parse_run_arguments(["--window_stride", "5"])
    with pytest.raises(ValueError, match="`test_from` must come with `--split global_time`"):
        parse_run_arguments(["--test_from", "0.9"])


def test_streaming_goes_with_leave_one_out_in_random_order():
    assert parse_run_arguments(["--streaming", "true"]).training.streaming
    with pytest.raises(ValueError, match="`split` must be 'leave_one_out' with `--streaming true`"):
        parse_run_arguments(["--streaming", "true", "--split", "global_time"])
    with pytest.raises(ValueError, match="`train_sampling_strategy` must be 'random' with `streaming`"):
        parse_run_arguments(["--streaming", "true", "--train_sampling_strategy", "group_by_length"])


def test_losses_and_their_negatives():
    training = parse_run_arguments([]).training
    assert (training.loss, training.num_negatives, training.train_on) == ("full_softmax", None, None)
    for loss, number in (("sampled_softmax", 512), ("bce", 1), ("gbce", 256), ("bpr", 1)):
        assert parse_run_arguments(["--loss", loss]).training.num_negatives == number
    gbce = ["--loss", "gbce", "--num_negatives", "8", "--share_negatives", "false", "--gbce_t", "0.5"]
    arguments = parse_run_arguments([*gbce, "--negatives_distribution", "popularity", "--negatives_alpha", "1"])
    training = arguments.training
    assert (training.num_negatives, training.share_negatives, training.gbce_t) == (8, False, 0.5)
    assert (training.negatives_distribution, training.negatives_alpha) == ("popularity", 1.0)
    assert training.objective() == {
        "loss": "gbce",
        "num_negatives": 8,
        "negatives_distribution": "popularity",
        "share_negatives": False,
        "negatives_alpha": 1.0,
        "gbce_t": 0.5,
    }
    published = parse_run_arguments(["--loss", "gbce", "--constant_bias", "false", "--share_negatives", "false"])
    assert published.training.objective()["constant_bias"] is False
    # The configuration only records them.
    assert not {"item_loss", "num_negatives", "gbce_t", "constant_bias", "label_smoothing"} & set(arguments.network)
    smoothed = parse_run_arguments(["--label_smoothing_factor", "0.1"]).training
    assert smoothed.objective() == {"loss": "full_softmax", "label_smoothing_factor": 0.1}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--num_negatives", "5"], "`num_negatives` must come with a `--loss` that samples, got 'full_softmax'"),
        (
            ["--negatives_distribution", "mixed", "--share_negatives", "true"],
            "`share_negatives`, `negatives_distribution` must come with",
        ),
        (
            ["--loss", "bce", "--num_negatives", "0"],
            "`num_negatives` must be at least 1 with uniform negatives, got 0",
        ),
        (
            ["--loss", "bce", "--negatives_distribution", "mixed"],
            "`num_negatives` must be at least 2 with mixed negatives, got 1",
        ),
        (["--loss", "bpr", "--negatives_alpha", "-1"], "`negatives_alpha` must be at least 0, got -1.0"),
        (["--loss", "gbce", "--gbce_t", "1.5"], r"`gbce_t` must be in \[0, 1\], got 1.5"),
        (["--loss", "bce", "--label_smoothing_factor", "0.1"], "`label_smoothing_factor` must come with `--loss full"),
        (["--label_smoothing_factor", "1.5"], r"`label_smoothing_factor` must be in \[0, 1\], got 1.5"),
        (["--embedding_optimizer", "rowwise_adagrad"], "must come with a `--loss` that samples, got 'full_softmax'"),
        (
            ["--loss", "bce", "--embedding_optimizer", "rowwise_adagrad", "--embedding_learning_rate", "0"],
            "`embedding_learning_rate` must be above 0, got 0.0",
        ),
        (
            ["--loss", "bce", "--embedding_optimizer", "rowwise_adagrad", "--fsdp", "full_shard"],
            "must come without `fsdp`",
        ),
        (["--train_on", "every_prefix", "--window", "random"], "`train_on` must not be 'every_prefix' with"),
        (["--train_on", "every_prefix", "--streaming", "true"], "`train_on` must not be 'every_prefix' with"),
    ],
)
def test_losses_and_samples_that_do_not_go_together(given, message):
    with pytest.raises(ValueError, match=message):
        parse_run_arguments(given)


class TestWhatAResumedRunMayChange:
    def identity(self, *arguments):
        return parse_run_arguments(["--output_dir", "x", *arguments]).run_identity()

    @pytest.mark.parametrize(
        "changed",
        [
            "--hidden_size 32",
            "--hidden_dropout_prob 0.5",
            "--loss bpr",
            "--max_length 50",
            "--window random",
            "--train_on last_position",
            "--seed 1",
            "--learning_rate 0.1",
            "--weight_decay 0.1",
            "--lr_scheduler_type constant",
            "--optim adafactor",
            "--per_device_train_batch_size 32",
            "--gradient_accumulation_steps 2",
            "--metric_for_best_model mrr@10",
            "--eval_protocol sampled",
            "--streaming true",
        ],
    )
    def test_not_what_the_weights_depend_on(self, changed):
        assert self.identity(*changed.split()).same != self.identity().same

    def test_how_long_is_recorded(self):
        before, after = self.identity(), self.identity("--num_train_epochs", "7", "--max_grad_norm", "0.5")
        assert before.same == after.same
        changed = differences(before.recorded, after.recorded)
        assert changed == {"num_train_epochs": [100, 7], "max_grad_norm": [1, 0.5]}

    def test_a_step_of_as_many_histories_is_the_same(self):
        halves = ["--per_device_train_batch_size", "32", "--gradient_accumulation_steps", "2"]
        assert self.identity(*halves).same == self.identity().same

    def test_the_machine_and_the_logs_are_nobodys_business(self):
        arguments = "--scan_backend chunked --logging_steps 3 --save_total_limit 9 --cpu_threads 1 --output_dir y"
        assert self.identity(*arguments.split()) == self.identity()

    def test_where_the_data_are_is_not_which_they_are(self):
        elsewhere = self.identity("--dataset", "moved/log.csv")
        assert elsewhere.same == self.identity().same
        assert elsewhere.recorded["dataset"] == "moved/log.csv"


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_models_say_of_the_fields_that_all_have_what_the_base_says(model_type):
    base = {field.name: field.metadata for field in dataclasses.fields(SeqRecConfig)}
    own = {field.name: field.metadata for field in dataclasses.fields(config_class(model_type))}
    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    assert {name: own[name] for name in base.keys() - inherited} == {
        name: base[name] for name in base.keys() - inherited
    }
    # Rates of dropout and masking: no weight depends on them.
    assert all(own[name].get("free_in_fine_tuning") for name in own if name.endswith(("dropout_prob", "probability")))
