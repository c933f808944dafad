"""Who is drawn to be mixed with whom."""

import pickle

import numpy as np
import pytest

from rmjax.data.partners import PARTNERS, make_partners
from rmjax.errors import InputError

# Source 2 shows semantic 1 alone, and semantic 3 is shown by source 0 alone.
CELLS = [(0, 0), (0, 1), (0, 3), (1, 0), (1, 1), (2, 1)]


@pytest.fixture(scope="module")
def labels():
    rng = np.random.default_rng(0)
    cells = np.repeat(np.array(CELLS, np.int32), [5, 3, 4, 2, 6, 3], axis=0)
    return rng.permutation(cells).T


def draw(name, labels, members=2, rounds=400):
    """Return labels of first and other members, `[groups]` and `[groups, others]`."""
    source, semantic = labels
    first = np.tile(np.arange(len(source)), rounds)
    others = make_partners(name, source, semantic)(
        first, members, np.random.default_rng(1)
    )
    assert others.shape == (len(first), members - 1)
    return first, others


def test_any_partner_is_drawn_from_all(labels):
    _, others = draw("any", labels, members=3)
    assert set(others.ravel()) == set(range(labels.shape[1]))


@pytest.mark.parametrize(("name", "same"), [("same_source", 0), ("same_semantic", 1)])
def test_partners_share_one_label_and_differ_in_the_other(labels, name, same):
    first, others = draw(name, labels, members=3)
    shared, free = labels[same], labels[1 - same]
    assert (shared[others] == shared[first][:, None]).all()
    for i in range(labels.shape[1]):
        possible = np.flatnonzero((shared == shared[i]) & (free != free[i]))
        if not len(possible):  # nobody: the other label may be the same
            possible = np.flatnonzero(shared == shared[i])
        # Uniform: each of at most 17 comes up in 800 draws.
        assert set(others[first == i].ravel()) == set(possible)


def test_factorial_partners_cross_two_sources_with_two_semantics(labels):
    source, semantic = labels
    first, others = draw("factorial", labels, members=4)
    a, p = source[first], semantic[first]
    np.testing.assert_array_equal(source[others[:, 0]], a)
    b, q = source[others[:, 1]], semantic[others[:, 0]]
    np.testing.assert_array_equal(semantic[others[:, 1]], p)
    np.testing.assert_array_equal(source[others[:, 2]], b)
    np.testing.assert_array_equal(semantic[others[:, 2]], q)
    whole = {tuple(row) for row in np.stack([a, p, b, q], axis=1)}
    # Full crosses of sources 0 and 1, semantics 0 and 1; else as much as there is.
    assert {c for c in whole if c[:2] == (0, 0)} == {(0, 0, 1, 1)}
    assert {c for c in whole if c[:2] == (1, 1)} == {(1, 1, 0, 0)}
    assert {c for c in whole if c[:2] == (2, 1)} == {(2, 1, 0, 1), (2, 1, 1, 1)}
    assert {c for c in whole if c[:2] == (0, 3)} == {(0, 3, 0, q) for q in (0, 1)}


@pytest.mark.parametrize("name", PARTNERS)
def test_draws_depend_on_the_generator_alone_and_can_be_pickled(labels, name):
    choose = make_partners(name, *labels)
    first = np.arange(10)
    again = pickle.loads(pickle.dumps(choose))
    found = [c(first, 4, np.random.default_rng(3)) for c in (choose, again)]
    np.testing.assert_array_equal(*found)


def test_unknown_partners_are_named(labels):
    with pytest.raises(InputError, match="mix.partners 'twin'.*any, same_source"):
        make_partners("twin", *labels)
