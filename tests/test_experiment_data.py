"""Which sources and semantics an experiment trains on, tests on, and holds out."""

import pytest

from rmjax.errors import InputError
from rmjax.experiment import data as experiment_data
from rmjax.experiment.data import open_data


def test_held_out_sources_are_tested_on_alone(small_config):
    held_out = ("cips", "biggan")
    data = open_data(small_config(**{"data.held_out_sources": held_out}))
    assert len(data.sources) == 6 and not set(held_out) & set(data.sources)
    assert data.held_out.source_names == held_out
    # The test images of the six seen semantics, one a cell.
    assert data.held_out.size(*data.held_out_splits) == 2 * 6
    assert data.held_out.semantic_names == data.seen.semantic_names
    everything = open_data(small_config())
    assert everything.held_out is None and len(everything.sources) == 8


def test_unknown_sources_of_a_data_set_are_held_out(
    small_config, memory_dataset, monkeypatch
):
    def row(source, split):
        path = f"{source}-{split}"
        return {
            "image": b"", "source": source, "semantic": "cat", "path": path,
            "split": split,
        }  # fmt: skip

    rows = [row("real", "train"), row("a", "train"), row("b", "unknown_arch")]
    dataset = memory_dataset(rows)
    object.__setattr__(dataset, "unknown_sources", ("b",))
    monkeypatch.setattr(experiment_data, "open_dataset", lambda _: dataset)
    config = small_config(**{"data.unseen_semantics": (), "data.near_sources": ("b",)})
    data = open_data(config)
    assert data.sources == ("real", "a")
    assert data.held_out.source_names == ("b",) and data.near_sources == ("b",)
    assert data.held_out_splits == ("unknown_arch",)
    assert data.held_out.size(*data.held_out_splits) == 1
    # Who names it as a source trains on it.
    config.data.sources, config.data.near_sources = ("real", "a", "b"), ()
    assert open_data(config).held_out is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"held_out_sources": ("real",)}, "held_out_sources: real can't be held out"),
        ({"held_out_sources": ("dalle",)}, "unknown source 'dalle'.* real"),
        (
            {"sources": ("real", "cips"), "held_out_sources": ("cips",)},
            "held_out_sources: cips can't be held out: named in data.sources too",
        ),
        (
            {"held_out_sources": ("cips",), "near_sources": ("biggan",)},
            "near_sources: biggan not held out; held out are: cips",
        ),
    ],
)
def test_what_can_not_be_held_out_is_named(small_config, changes, message):
    config = small_config(**{f"data.{name}": v for name, v in changes.items()})
    with pytest.raises(InputError, match=message):
        open_data(config)
