"""Finding configs, and changing them from the command line."""

import math

import pytest
from ml_collections import ConfigDict

from rmjax.errors import InputError
from rmjax.experiment.config import flatten, load_config, shipped_configs
from rmjax.experiment.ranges import RANGES, check_values


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_has_the_same_keys(name):
    assert set(flatten(load_config(name))) == set(flatten(load_config("repmix")))


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_is_within_the_ranges(name):
    check_values(load_config(name))


def changed(key, value):
    """The published config, with a value of any type."""
    config = load_config("repmix").to_dict()
    *path, last = key.split(".")
    at = config
    for name in path:
        at = at[name]
    at[last] = value
    return ConfigDict(config)


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def test_every_number_of_a_config_has_a_range():
    for key, value in flatten(load_config("repmix")).items():
        entries = value if isinstance(value, tuple) else (value,)
        assert (key in RANGES) == any(map(is_number, entries)), key


@pytest.mark.parametrize("key", flatten(load_config("repmix")))
def test_values_that_are_none_of_a_key_are_refused_by_its_name(key):
    default = flatten(load_config("repmix"))[key]
    wrong = [None, [], 1j]
    if key in RANGES:
        wrong += [math.nan, math.inf, -math.inf, -1, -1e-9, 1e99, True, "1"]
    elif isinstance(default, bool):
        wrong += [0, 1, "True"]
    else:
        wrong += [0, True, b"text"]
    if isinstance(default, tuple):
        wrong = [(value,) for value in wrong] + [None, 1]
    for value in wrong:
        with pytest.raises(InputError) as caught:
            check_values(changed(key, value))
        assert str(caught.value).startswith(f"{key} = ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("optim.b1", (0, 0.999), (1, 1.5)),
        ("optim.lr", (1e-12, 1e30), (0,)),
        ("optim.lr_decay", (1e-3, 1.0), (0, 1.001)),
        ("corrupt.rate", (0, 1), (1.001,)),
        ("data.workers", (0, 8), (0.5, 10**9)),
        ("data.crop", (16, 224), (15, 16.0)),
        ("steps_per_epoch", (0, 1), (1.0,)),
        ("patience", (1, 100), (0, 1.5, 2**31)),
        ("corrupt.severities", ((1, 5), (3,)), ((0,), (1, 6), (2.5,))),
        ("seed", (0, 2**32 - 1), (2**32,)),
    ],
)
def test_ranges_end_where_they_should(key, good, bad):
    for value in good:
        check_values(changed(key, value))
    for value in bad:
        with pytest.raises(InputError, match=f"^{key} = "):
            check_values(changed(key, value))


def test_the_base_config_is_the_published_recipe():
    """REFERENCE: Adam 1e-4, 0.85 an epoch, 32 groups of 2, beta 0.4, level 5."""
    config = load_config("repmix")
    assert (config.optim.lr, config.optim.lr_decay) == (1e-4, 0.85)
    assert (config.optim.weight_decay, config.optim.b2) == (5e-4, 0.999)
    assert config.batch_size == 32 * config.mix.members == 64
    assert (config.mix.level, config.mix.beta) == (5, 0.4)
    assert (config.num_epochs, config.eval_every_epochs, config.patience) == (30, 2, 3)


def test_values_take_the_type_of_what_they_replace():
    config = load_config(
        "repmix",
        [
            "--config.optim.lr=1",
            "--config.data.flip=false",
            "--config.data.sources=('real', 'x')",
            "--config.mix.name=none",
        ],
    )
    assert config.optim.lr == 1.0 and isinstance(config.optim.lr, float)
    assert config.data.flip is False
    assert config.data.sources == ("real", "x")
    assert config.mix.name == "none"


@pytest.mark.parametrize(
    "change",
    ["--config.mix.lvl=3", "--config.mixing.level=3", "--config.mix.level=deep"],
)
def test_a_bad_change_is_named_with_the_choices(change):
    with pytest.raises(InputError) as caught:
        load_config("repmix", [change])
    message = str(caught.value)
    assert change in message and "mix.level" in message and "\n" not in message


def test_an_unknown_config_lists_the_shipped_ones():
    with pytest.raises(
        InputError, match="no config 'repmiks'.*attribution_mini.*repmix"
    ):
        load_config("repmiks")


def test_a_config_of_ones_own_by_path(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from rmjax.configs.repmix import get_config as published\n"
        "def get_config():\n"
        "    config = published()\n"
        "    config.seed = 7\n"
        "    return config\n"
    )
    assert load_config(str(path)).seed == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "no get_config"),
        ("def get_config():\n    return 3", "returns int; give a ConfigDict"),
        ("import absent_module", "line 1: ModuleNotFoundError.*absent_module"),
        ("def get_config():\n    return 1 / 0", "line 2: ZeroDivisionError"),
        ("def get_config(:", "SyntaxError"),
        ("\0", "null bytes"),
    ],
)
def test_a_file_that_makes_no_config_is_told_in_one_line(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(InputError, match=f"mine.py.*{message}") as told:
        load_config(str(path))
    assert "\n" not in str(told.value)
