"""The commands that take weights and images: convert, export, push, embed, attribute."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from json import dumps
from typing import TYPE_CHECKING, Annotated, Any

from rmjax.cli.gallery import GALLERY_FOLDER, describe_threshold
from rmjax.cli.options import (
    ColumnNames,
    Count,
    DataDir,
    Fraction,
    Hosts,
    Names,
    NewFile,
    NewFolder,
    Weights,
)
from rmjax.errors import InputError, harmless

if TYPE_CHECKING:
    from rmjax.data.listing import Item
    from rmjax.inference.attributor import Attributor

# Exit status where some images could not be read and the others were answered.
SOME_FAILED = 1


def convert_weights(
    source: str,
    *,
    out: Annotated[NewFolder, "folder of the run to make"],
    layout: str = "auto",
    sources: Names = (),
    changes: list[str],
) -> None:
    """Turn weights of PyTorch projects, or a run that was pushed or exported, into a run.

    Reads vision transformers (CLIP, DINOv2, DINOv3, SigLIP), ResNet-18 or -50 of
    torchvision or timm, the published RepMix, or RepMix of ImageAttributionBench,
    without executing anything in the file, and writes a folder that embed, attribute,
    evaluate and --config.model.init take. What `rmjax push` or `rmjax export` wrote
    becomes a folder again, with its sources and calibration.

    Args:
        source: a folder with config.json and its weights; a .pth, .ckpt or .safetensors
            file, or a folder of one; or hf:OWNER/NAME on the Hugging Face Hub, with
            @REVISION for a branch, tag or commit
        layout: imagenet, repmix or image_attribution_bench (default: auto, by content)
        sources: names of the classes in the file's order, real,A,B (default:
            ImageAttributionBench's, or real,source1,source2)
        changes: Any key of the new run's config can be set with --config.KEY=VALUE,
            such as --config.data.name=attribution88/full.
    """
    from rmjax.inference.local import make_run

    weights = make_run(source, out, layout=layout, sources=sources, changes=changes)
    facts = weights.provenance
    print(f"layout:   {facts.get('layout', 'rmjax')} ({weights.config.model.arch})")
    print(f"sources:  {', '.join(weights.source_names) or 'none'}")
    print(f"left out: {', '.join(facts.get('left_out', ())) or 'nothing'}")
    for note in facts.get("notes", ()):
        print(f"note:     {note}")
    if "hub" in facts:
        print(f"from:     {facts['hub']}, commit {facts['commit']}")
    print(f"\nconverted: {out}")


def export_run(
    *,
    out: NewFile,
    workdir: Annotated[
        str | None,
        "folder of the run, or hf:OWNER/NAME (default: the network that ships with rmjax)",
    ] = None,
    checkpoint: str = "best",
) -> None:
    """A run as one file of weights, in the safetensors format.

    It holds all that is needed to ask the network about images: embed, attribute,
    gallery and --config.model.init take it instead of the folder.

    Args:
        out: the .safetensors file to make
        checkpoint: best, last or a step
    """
    from rmjax.inference.attributor import load
    from rmjax.inference.exported import export

    model = load(workdir, checkpoint=checkpoint, num_devices=1)
    file = export(model, out)
    print(
        f"exported: {file}, checkpoint {model.checkpoint}, {model.digest[:12]}, "
        f"{file.stat().st_size / 2**20:.1f} MiB"
    )


def push_run(
    workdir: Annotated[str, "folder of the run"],
    address: str,
    *,
    checkpoint: str = "best",
    private: bool = False,
    license: str | None = None,
    message: str | None = None,
    revision: str | None = None,
) -> None:
    """Upload a run to the Hugging Face Hub.

    Writes, in one commit: model.safetensors, as of `rmjax export`; config.json;
    calibration.json and the results.json of evaluations, where there are any; and
    README.md, a model card made of these, in place of the one that is there. No images
    are uploaded, and of paths of this machine the last part alone. `rmjax.load`, embed,
    attribute, gallery and --config.model.init take the address. It needs a token:
    `hf auth login`, or HF_TOKEN.

    Args:
        address: hf:OWNER/NAME; the repository is made if there is none
        checkpoint: best, last or a step
        private: make the repository one that only its owner can see
        license: of the weights, by its name on the Hub, such as cc-by-4.0 (default: none
            is stated)
        message: of the commit (default: version and step)
        revision: the branch, made if there is none (default: the main one)
    """
    from rmjax.hub.push import push

    done = push(
        workdir,
        address,
        checkpoint=checkpoint,
        private=private,
        license=license,
        message=message,
        revision=revision,
    )
    print(f"pushed: {done.url}")
    print(f'load:   rmjax.load("{done.address}"), commit {done.commit}')


def write_fingerprints(
    *,
    workdir: Weights = None,
    images: str,
    out: str,
    layer: str | None = None,
    batch_size: int = 64,
    splits: Names = (),
    shard: Fraction | None = None,
    data_dir: DataDir = "data",
    columns: ColumnNames,
    hosts: Hosts,
) -> int:
    """Fingerprints of many images, as a table.

    Writes one row per image: path, source where known, fingerprint, probabilities of
    detection and attribution, and what is wrong with it where it can't be read. Run
    again after a stop, it goes on. Of a prepared data set, heads can be trained on the
    table: rmjax train --config probe --config.data.features=TABLE.

    Args:
        images: a folder, a CSV with the column path (and source), the name of a
            prepared data set, parquet files or WebDataset shards (a folder, a pattern
            such as 'shard-{000..127}.tar', an address), or hf:USER/DATASET
        out: a .parquet or .npz file
        layer: another activation: stem, layer1 to layer4, pool or embedding, of a
            transformer hidden_0 and so on too; maps and tokens are averaged over places
            (default: embedding, the fingerprint)
        batch_size: images at once
        splits: of a data set, A,B (default: all)
        shard: K/N: do the Kth part in N, from 0/N on, into a file of its own

    Returns:
        0 all images were embedded, 1 some could not be read, 2 wrong arguments.
    """
    hosts.join()
    from rmjax.experiment.hosts import check_alike, gather, is_first
    from rmjax.inference.attributor import load_pretrained
    from rmjax.inference.embed import embed_images

    if hosts.distributed and shard:
        raise InputError("--shard is for a command alone, not with --distributed")
    model = load_pretrained(workdir)
    check_alike({"network": model.digest, "layer": layer})
    listed, count, about, rows = _list_images(
        images, columns, data_dir, splits, model.source_names
    )
    check_alike({"number of images": count})
    file, *mine = embed_images(
        model,
        listed,
        count,
        out,
        layer=layer,
        about={"weights": workdir} | about,
        batch_size=batch_size,
        shard=shard,
        rows_per_part=rows,
        show_progress=is_first(),
    )
    shards = gather(mine)
    rows = sum(shard_rows for shard_rows, _ in shards)
    failed = [line for _, lines in shards for line in lines]
    if is_first():
        for line in failed:
            print(f"rmjax embed: {harmless(line)}", file=sys.stderr)
        files = "" if len(shards) == 1 else f", the first of {len(shards)} files"
        print(f"embedded: {rows - len(failed)} of {rows} images: {file}{files}")
    return SOME_FAILED if failed else 0


def _list_images(
    images: str,
    columns: ColumnNames,
    data_dir: str,
    splits: tuple[str, ...],
    known: tuple[str, ...],
) -> tuple[Callable[[], Iterator["Item"]], int, dict[str, Any], int]:
    """Return images, how many, what to say of them, and how many to hold in memory."""
    from rmjax.data.direct import list_collection, open_directly, rows_in_memory
    from rmjax.data.listing import describe_images, list_images
    from rmjax.inference.embed import ROWS_PER_PART

    collection = open_directly([images], columns.read())
    if collection:
        listed, count = list_collection(collection)
        rows = min(ROWS_PER_PART, rows_in_memory(collection, count))
        return listed, count, {"columns": vars(columns)}, rows
    listed, count = list_images(images, data_dir=data_dir, splits=splits, known=known)
    dataset = describe_images(images, data_dir=data_dir, splits=splits)
    return listed, count, {"dataset": dataset}, ROWS_PER_PART


def attribute_images(
    images: list[str],
    *,
    workdir: Weights = None,
    image: str = "",
    gallery: str | None = None,
    json: bool = False,
    top: Count = 5,
) -> int:
    """Which source made an image, and how far that can be trusted.

    Reports what the file says of its origin, then what the network says of its pixels:
    real or synthetic, the probable sources, how stable that is when the image is shared
    once more, and where it lies outside of what the network was trained on. A network
    without sources, such as the one that ships, says which generators of a gallery the
    image is near. No answer is a verdict: docs/meaning.md.

    Args:
        images: image files; or parquet files, WebDataset shards or hf:USER/DATASET, for
            every image in them
        image: of such files, the column or suffix of the image (default: the one that
            looks like it)
        gallery: for a network without sources, folder of a gallery (default: gallery)
        json: one JSON document on the output
        top: sources or generators that are listed

    Returns:
        0 all images were answered, 1 some could not be read, 2 wrong arguments.
    """
    from rmjax.data.direct import list_single
    from rmjax.inference.attribute import attribute, describe_model
    from rmjax.inference.attributor import load_pretrained
    from rmjax.provenance import CAVEAT

    model = load_pretrained(workdir)
    if model.source_names and gallery:
        raise InputError(
            f"--gallery: {model.name} has sources of its own to name; ask about a "
            "gallery with `rmjax gallery query`"
        )
    listed = list_single(images, image)
    document: dict[str, Any] = {"model": describe_model(model)}
    notes = [CAVEAT]
    in_middle: Callable[[dict], list[tuple[str, str]]]
    if model.source_names:
        answers = attribute(model, listed)
        in_middle = partial(_of_sources, top, document["model"]["calibrated"])
    else:
        folder = gallery or GALLERY_FOLDER
        answers, document["gallery"] = _ask_gallery(model, folder, listed, top)
        in_middle = _of_generators
        notes.append(_describe_gallery(document["gallery"]))
    notes.append(
        f"Network: {model.name}, checkpoint {model.checkpoint}, {model.digest[:12]}, "
        f"rmjax {document['model']['rmjax']}"
    )
    document["images"] = []
    for answer in answers:
        if "error" in answer:
            print(f"rmjax attribute: {harmless(answer['error'])}", file=sys.stderr)
        elif not json:
            print(_in_words(answer, in_middle(answer)) + "\n")
        document["images"].append(answer)
    print(dumps(document, indent=2) if json else "\n".join(notes))
    failed = any("error" in answer for answer in document["images"])
    return SOME_FAILED if failed else 0


def _ask_gallery(
    model: "Attributor", folder: str, images: Iterator, top: int
) -> tuple[Iterator[dict[str, Any]], dict[str, Any]]:
    """Return the answers about images, as they are asked for, and about the gallery."""
    from rmjax.gallery.ask import load_asker
    from rmjax.gallery.attribute import attribute_by_gallery, describe_gallery

    asker = load_asker(folder, model)
    described = {"folder": folder} | describe_gallery(asker)
    return attribute_by_gallery(asker, images, top), described


def _describe_gallery(gallery: dict[str, Any]) -> str:
    return (
        f"Gallery: {harmless(gallery['folder'])}, {gallery['generators']} generators, "
        f"{gallery['images']} images; "
        + describe_threshold("neighbours", gallery["threshold"])
    )


def _of_sources(top: int, calibrated: bool, answer: dict) -> list[tuple[str, str]]:
    trust = "calibrated" if calibrated else "not calibrated: run `rmjax evaluate`"
    sources = ", ".join(
        f"{name} {chance:.3f}" for name, chance in answer["sources"][:top]
    )
    return [
        ("synthetic", f"{answer['synthetic']:.3f} ({trust})"),
        ("sources", sources),
    ]


def _of_generators(answer: dict) -> list[tuple[str, str]]:
    nearest = ", ".join(
        f"{row['generator']} {row['similarity']:.3f}" for row in answer["ranked"]
    )
    return [("nearest", f"{nearest} (similarity, -1 to 1)")]


def _in_words(answer: dict, rows: list[tuple[str, str]]) -> str:
    """Lay out the answer about one image as lines of text, `rows` in the middle."""
    views = answer["views"]
    agree = sum(view["answer"] == answer["answer"] for view in views)
    shown = ", ".join(f"{view['view']} {view['answer']}" for view in views)
    rows = [
        *(("file", line) for line in answer["file"]),
        ("answer", f"{answer['answer']} ({answer['reason']})"),
        *rows,
        ("stability", f"{agree} of {len(views)} views agree: {shown}"),
        *(("warning", line) for line in answer["warnings"]),
    ]
    lines = [f"  {name:<10} {text}" for name, text in rows]
    return "\n".join([harmless(answer["image"]), *lines])
