import jax.numpy as jnp
import numpy as np
import pytest

from rmjax.models.tiles import cut, join, map_tiles


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((2, 13, 21, 3)).astype(np.float32)


def test_tiles_stand_in_the_middle(images):
    tiles = np.asarray(cut(images, 6))
    assert tiles.shape == (2, 2, 3, 6, 6, 3)
    for row in range(2):
        for column in range(3):
            top, left = 6 * row, 1 + 6 * column  # 1 and 3 px are left over
            expected = images[:, top : top + 6, left : left + 6]
            np.testing.assert_array_equal(tiles[:, row, column], expected)
    np.testing.assert_array_equal(join(tiles), images[:, :12, 1:19])


def test_a_short_side_is_continued_by_its_mirror(images):
    (tile,) = np.asarray(cut(images, 16))[0, :, 0]
    assert tile.shape == (16, 16, 3)
    whole = np.concatenate([images[0, :1], images[0], images[0, :-3:-1]])
    np.testing.assert_array_equal(tile, whole[:, 2:18])


def test_a_function_sees_one_tile_at_a_time(images):
    def centre(x):
        return x[:, 1:3, 1:3] - jnp.mean(x, axis=(1, 2), keepdims=True)

    mapped = np.asarray(map_tiles(images, function=centre, size=4))
    assert mapped.shape == (2, 6, 10, 3)
    tile = images[:, 4:8, 8:12]
    expected = tile[:, 1:3, 1:3] - tile.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(mapped[:, 2:4, 4:6], expected, atol=1e-6)
