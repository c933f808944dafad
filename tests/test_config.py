"""Finding configs, and changing them from the command line."""

import pytest

from rmjax.errors import InputError
from rmjax.experiment.config import flatten, load_config, shipped_configs


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_has_the_same_keys(name):
    assert set(flatten(load_config(name))) == set(flatten(load_config("repmix")))


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
