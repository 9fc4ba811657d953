"""run.yaml: every mistake at once, with line and nearest key; nothing executed; no secret kept."""

import pytest

from tsguard.config import config_from, load_config, nearest_key
from tsguard.errors import ConfigError

GOOD = "name: a\nmodel: {use: 'm:build'}\n"


def mistake(text):
    with pytest.raises(ConfigError) as caught:
        config_from(text)
    return str(caught.value)


def test_the_key_of_the_field_is_answered_with_the_key_that_was_meant():
    words = mistake(GOOD + "training:\n  num_epochs: 3\n")
    assert "run.yaml:4: training.num_epochs is not known here; did you mean train.epochs?" in words


def test_all_mistakes_are_told_at_once():
    words = mistake("model: {use: 3}\ntrain:\n  epochs: many\n  batchsize: 3\nname: [1]\n").splitlines()
    assert len(words) == 4
    assert any(line.startswith("run.yaml:4: train.batchsize") and "train.batch_size" in line for line in words)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "an empty file"),
        ("- a\n- b\n", "a list"),
        ("just words", "a single value"),
        ("a: [1", "not YAML"),
        ("name: a\nname: b\n", "a second time (first on line 1)"),
        ("name: !!python/object/apply:os.system ['true']\n", "nothing in a configuration is executed"),
        ("name: a\n", "model is missing"),
        (GOOD + "gates: {r2: 1}\nseed: -1\n", "seed"),
    ],
)
def test_bad_files_are_answered_in_words(text, expected):
    assert expected in mistake(text)


def test_a_file_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(tmp_path / "bytes.yaml")
    with pytest.raises(ConfigError, match=r"(?i)directory"):
        load_config(tmp_path)


def test_changes_from_the_command_line(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    config = load_config(path, changes=["train.epochs=3", "gates={r2: '> 0'}", "model.args.width=64"])
    assert config.settings.train.epochs == 3
    assert config.settings.gates == {"r2": "> 0"}
    assert config.settings.model.args == {"width": 64}
    for wrong in ("train.epochs", "name.x=3", "=3"):
        with pytest.raises(ConfigError, match="--set"):
            load_config(path, changes=[wrong])


def test_references_are_used_and_never_kept(monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret-value")
    monkeypatch.setenv("EPOCHS", "7")
    config = config_from(GOOD + "trackers: [{kind: wandb, args: {key: '${MY_KEY}'}}]\ntrain: {epochs: '${EPOCHS}'}\n")
    assert config.settings.trackers[0].args == {"key": "s3cret-value"}
    assert config.settings.train.epochs == 7
    assert "s3cret-value" not in config.text()
    assert "${MY_KEY}" in config.text()


def test_a_wrong_value_from_a_reference_is_not_shown(monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret-value")
    words = mistake(GOOD + "train: {epochs: '${MY_KEY}'}\n")
    assert "s3cret-value" not in words
    assert "${MY_KEY}" in words


def test_a_reference_that_is_not_set_names_itself_and_the_way_out():
    words = mistake(GOOD + "out: '${NOT_SET_ANYWHERE}'\n")
    assert "NOT_SET_ANYWHERE" in words
    assert ":-default" in words
    assert config_from(GOOD + "out: '${NOT_SET_ANYWHERE:-there}'\n").settings.out == "there"


def test_a_setting_that_nothing_reads_is_a_finding():
    config = config_from(GOOD + "train: {epochs: 3, clip_norm: 1.0}\nplan: {samples: 10}\n")
    assert config.settings.train.epochs == 3
    unused = {finding.where["config_key"] for finding in config.unused()}
    assert {"train.clip_norm", "plan"} <= unused
    assert not {"train", "train.epochs"} & unused
    assert {finding.code for finding in config.unused()} == {"config-unused-key"}


def test_the_resolved_configuration_reads_back_the_same():
    config = config_from(GOOD + "train: {epochs: 3}\n")
    again = config_from(config.text())
    assert again.resolved() == config.resolved()


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("training.num_epochs", "train.epochs"), ("train.bs", None), ("guards.polcy", "guard.policy"), ("sede", "seed")],
)
def test_the_nearest_key(wrong, meant):
    if meant is None:
        assert nearest_key(wrong) != "gates"
    else:
        assert nearest_key(wrong) == meant
