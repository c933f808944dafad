"""Which sources are trained on which semantics, and what is new for testing then."""

import logging

import numpy as np
import pytest

from rmjax.data.pairs import draw_pairs, share_sources
from rmjax.errors import InputError
from rmjax.experiment import data as experiment_data
from rmjax.experiment.config import load_config
from rmjax.experiment.data import log_pairs, open_data

SOURCES = ("real", "a", "b")


def pairs_in(selection, split):
    """The pairs that a selection has images of in a split."""
    labels = selection.labels[split]
    names = selection.dataset.semantic_names
    return {
        (selection.source_names[source], names[semantic])
        for source, semantic in zip(labels["source"], labels["semantic"], strict=True)
    }


@pytest.fixture
def open_cells(memory_dataset, monkeypatch):
    """Function of images by pair and split, and changes of `data`, to what is opened."""

    def make(counts, **changes):
        rows = [
            {"image": b"", "source": source, "semantic": semantic, "split": split}
            | {"path": f"{source}-{semantic}-{split}-{number}"}
            for (source, semantic), splits in counts.items()
            for split, count in splits.items()
            for number in range(count)
        ]
        dataset = memory_dataset(rows)
        monkeypatch.setattr(experiment_data, "find_dataset", lambda *_: None)
        monkeypatch.setattr(experiment_data, "open_dataset", lambda _: dataset)
        config = load_config("repmix")
        config.data.update(changes)
        return config, open_data(config)

    return make


def grid(semantics="cat dog owl", **splits):
    """The same images of every source and semantic."""
    pairs = [(source, name) for source in SOURCES for name in semantics.split()]
    return dict.fromkeys(pairs, splits or {"train": 4, "val": 1, "test": 2})


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_a_draw_gives_each_semantic_to_as_many_sources(count):
    present = np.ones((11, 6), bool)
    tables = [draw_pairs(present, count, seed) for seed in range(100)]
    for table in tables:
        assert (table.sum(1) == count).all()
        assert np.ptp(table.sum(0)) <= 1
    assert np.array_equal(tables[3], draw_pairs(present, count, 3))
    # Over many seeds every pair has its turn.
    assert np.logical_or.reduce(tables).all()
    assert len({table.tobytes() for table in tables}) == (1 if count == 6 else 100)


def test_a_draw_takes_only_pairs_that_there_are():
    present = np.random.default_rng(0).random((9, 7)) < 0.6
    present[:, :2] = True
    for seed in range(20):
        table = draw_pairs(present, 2, seed)
        assert not (table & ~present).any() and (table.sum(1) == 2).all()


def test_left_out_pairs_are_tested_on_and_never_validated_on(small_config):
    config = small_config(**{"data.train_cells": (2,)})
    data = open_data(config)
    trained = pairs_in(data.seen, "train")
    assert len(trained) == 8 * 2
    assert pairs_in(data.seen, "val") == pairs_in(data.seen, "test") == trained
    new = pairs_in(data.new_pairs, "test")
    assert not new & trained and len(new | trained) == 8 * 6
    whole = open_data(small_config())
    assert whole.new_pairs is None
    both = data.seen.size("test") + data.new_pairs.size("test")
    assert both == whole.seen.size("test")
    assert data.unseen.semantic_names == whole.unseen.semantic_names
    # The draw is the data's, not the run's: all seeds of a sweep have the same.
    again = small_config(**{"data.train_cells": (2,), "seed": 5})
    assert open_data(again).trained_pairs == data.trained_pairs
    other = small_config(**{"data.train_cells": (2,), "data.cells_seed": 1})
    assert open_data(other).trained_pairs != data.trained_pairs


def test_sources_have_equally_many_training_images(open_cells):
    counts = grid()
    counts["a", "cat"] = {"train": 9, "test": 2}
    counts["b", "dog"] = {"train": 1, "test": 2}
    _, data = open_cells(counts, train_cells=(3,))
    labels = data.seen.labels["train"]
    of_pair = np.zeros((3, 3), int)
    np.add.at(of_pair, (labels["source"], labels["semantic"]), 1)
    # The third has 4, 1 and 4; of the others 9 each, as evenly as they can be.
    assert of_pair.tolist() == [[3, 3, 3], [3, 3, 3], [4, 1, 4]]
    assert data.seen.size("test") == 18 and data.new_pairs is None
    _, whole = open_cells(counts)  # nothing is cut unless asked for
    assert whole.seen.size("train") == 12 + 17 + 9


def test_shares_of_the_sources_in_each_semantic(open_cells):
    counts = {("real", "cat"): {"train": 6}, ("a", "cat"): {"train": 2}}
    counts |= {("b", "dog"): {"train": 5}, ("b", "owl"): {"test": 3}}
    shares = share_sources(open_cells(counts)[1].seen)
    # Of dogs one source has images, of owls none.
    expected = [[0.75, 0.25, 0], [1 / 3] * 3, [1 / 3] * 3]
    np.testing.assert_allclose(shares, expected, rtol=1e-6)


def test_pairs_by_name(open_cells, caplog):
    named = ("real/cat", "real/dog", "a/dog", "b/cat")
    config, data = open_cells(grid(), train_cells=named)
    wanted = {tuple(name.split("/")) for name in named}
    assert pairs_in(data.seen, "train") == pairs_in(data.seen, "test") == wanted
    assert pairs_in(data.new_pairs, "test") == {("a", "cat"), ("b", "dog")}
    # What no source is trained on is an unseen semantic, named so or not.
    assert pairs_in(data.unseen, "test") == {(source, "owl") for source in SOURCES}
    assert np.bincount(data.seen.labels["train"]["source"]).tolist() == [4, 4, 4]
    with caplog.at_level(logging.INFO):
        log_pairs(config, data)
    assert "4 of 6 pairs" in caplog.text and "owl" in caplog.text


def test_an_incomplete_folder_has_new_pairs_by_itself(open_cells):
    counts = grid("cat dog")
    counts["a", "dog"] = {"val": 1, "test": 2}
    counts["a", "owl"] = {"test": 2}
    _, data = open_cells(counts)
    assert pairs_in(data.new_pairs, "test") == {("a", "dog")}
    assert ("a", "dog") not in pairs_in(data.seen, "val")
    assert data.new_pairs.semantic_names == ("dog",)
    assert pairs_in(data.unseen, "test") == {("a", "owl")}
    assert data.seen.semantic_names == ("cat", "dog")


def test_images_for_testing_alone_are_seen_as_a_whole(open_cells):
    _, data = open_cells(grid(test=2))
    assert data.seen.size("test") == 18
    assert data.new_pairs is None and data.unseen is None


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ((4,), "'real'.* 3 "),
        ((1, 2), "one number"),
        ((1, "a/cat"), "one number"),
        (("real/cat", "a/cat"), "no pair of b.*'b/cat'"),
        (("c/cat",), "'c/cat'.*real, a, b"),
        (("a/fox",), "'a/fox'.*cat, dog, owl"),
        (("a/ant",), "'a/ant'.*cat, dog, owl"),  # kept for testing
        (("cat",), "SOURCE/SEMANTIC"),
        (("b/owl",), "'b/owl'.*no training images"),
    ],
)
def test_pairs_that_can_not_be_trained_on_are_named(open_cells, cells, words):
    counts = grid("cat dog owl ant") | {("b", "owl"): {"test": 2}}
    if cells == (4,):
        counts = grid("cat dog owl ant")
    with pytest.raises(InputError, match=f"^data.train_cells.*{words}"):
        open_cells(counts, train_cells=cells, unseen_semantics=("ant",))


def test_too_few_semantics_of_a_source_are_counted(open_cells):
    counts = grid() | {("b", "owl"): {"test": 2}}
    with pytest.raises(InputError, match="'b'.* 2 "):
        open_cells(counts, train_cells=(3,))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", (3,)),
        ("()", ()),
        ("real/cat", ("real/cat",)),
        ("('real/cat', 'a/b/c')", ("real/cat", "a/b/c")),
    ],
)
def test_pairs_from_the_command_line(text, value):
    config = load_config("repmix", [f"--config.data.train_cells={text}"])
    assert config.data.train_cells == value
