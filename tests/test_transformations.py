"""Data sets whose sources are image transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmjax.cli.main import main
from rmjax.corruptions import reshare
from rmjax.data.dataset import find_dataset, open_dataset
from rmjax.data.images import decode_rgb
from rmjax.datasets.image_folder.transformations import prepare, transformations
from rmjax.errors import InputError

SEMANTICS = ("bus", "cat")


def read(dataset, split):
    """Return labels and pixels of all images of a split."""
    labels = dataset.labels(split)
    count = len(labels["source"])
    files = dataset.files(split).read(list(range(count)))
    return labels, np.stack([decode_rgb(data, name) for name, data in files])


@pytest.fixture(scope="module")
def original(mini_dir):
    return open_dataset(find_dataset(mini_dir, "attribution_mini"))


@pytest.fixture(scope="module")
def made(original, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transformed")
    return open_dataset(prepare(original, "t", folder, semantics=SEMANTICS))


def test_splits_semantics_and_groups_stay(original, made):
    assert set(made.semantic_names) == set(SEMANTICS)
    kept = [original.semantic_names.index(name) for name in SEMANTICS]
    for split in ("train", "val", "test"):
        semantic = original.labels(split)["semantic"]
        labels = made.labels(split)
        assert len(labels["semantic"]) == np.isin(semantic, kept).sum()
        assert len(np.unique(labels["group"])) == len(labels["group"])


def test_each_transformation_has_as_many_images(made):
    assert made.source_names[0] == "real"
    assert set(made.source_names) == set(transformations())
    source = made.labels("train")["source"]
    counts = np.bincount(source, minlength=len(made.source_names))
    assert counts.max() - counts.min() <= 1


def test_images_are_the_originals_transformed(original, made):
    """Found by what was done to them: nothing, or JPEG of quality 50."""
    _, before = read(original, "train")
    labels, after = read(made, "train")
    whole = {image.tobytes() for image in before}
    real = after[labels["source"] == 0]
    assert len(real) and all(image.tobytes() in whole for image in real)
    unit = jnp.asarray(before, jnp.float32) / 255
    coded = np.round(
        np.asarray(jax.jit(reshare, static_argnums=(1, 2))(unit, "jpeg", 50)) * 255
    )
    coded = {image.astype(np.uint8).tobytes() for image in coded}
    jpeg = after[labels["source"] == made.source_names.index("jpeg-50")]
    assert len(jpeg) and all(image.tobytes() in coded for image in jpeg)


def test_the_command_says_what_it_made_and_names_what_it_lacks(
    mini_dir, original, made, capsys
):
    command = ["prepare", "transformations", "--data-dir", str(mini_dir), "--name", "x"]
    assert main([*command, "--of", "mini"]) == 2
    assert "no prepared data set 'mini'" in capsys.readouterr().err
    assert main([*command, "--of", "attribution_mini", "--semantics", "cat,dog"]) == 2
    assert "dog" in capsys.readouterr().err
    assert not (mini_dir / "image_folder" / "x").exists()
    with pytest.raises(InputError, match="prepared from other images"):
        prepare(original, "t", made.directory.parents[2], semantics=("bus",))
