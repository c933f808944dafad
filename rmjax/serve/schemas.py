"""What the server answers, as types: for its OpenAPI description."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from rmjax.gallery.search import Threshold
from rmjax.provenance import Provenance


class Error(BaseModel):
    """Why there is no answer."""

    error: str = Field(description="one line: what is wrong, and what would be right")


class Health(BaseModel):
    """That the server runs."""

    status: Literal["ok"]


class Network(BaseModel):
    """Which network it is."""

    name: str
    checkpoint: int = Field(description="the training step it is of")
    sha256: str = Field(description="of the parameters and batch statistics")
    rmjax: str = Field(description="version of rmjax")
    provenance: dict[str, Any] | None = Field(
        description="where converted weights come from; null of a run that was trained here"
    )
    calibrated: bool = Field(
        False, description="whether probabilities are; of a network with sources"
    )
    operating_points: list[dict[str, float]] = Field(
        [], description="thresholds of being synthetic, with their false-positive rates"
    )
    reject: dict[str, Any] | None = Field(
        None, description="threshold below which no known source is probable enough"
    )


class Gallery(BaseModel):
    """Generators known by example images."""

    generators: int = Field(description="how many are enrolled")
    images: int = Field(description="how many of all of them")
    space: str = Field(description="what fingerprints are compared in")
    threshold: Threshold


class Sizes(BaseModel):
    """What one request may hold."""

    bytes: int = Field(description="of the request")
    pixels: int = Field(description="of an image")
    images: int = Field(description="how many")


class Model(Network):
    """Which network it is, and what can be asked of this server."""

    sources: list[str] = Field(description="that it tells apart; may be none")
    gallery: Gallery | None = Field(
        description="null where there is none, or it is empty"
    )
    limits: Sizes
    explains: bool = Field(description="whether /v1/explain answers")


class Failed(BaseModel):
    """An image that can't be read."""

    image: str = Field(description="last part of the name that was sent")
    error: str = Field(description="one line: why")


class Similarity(BaseModel):
    """A generator that an image is near."""

    generator: str
    similarity: float = Field(description="cosine, -1 to 1")


class View(BaseModel):
    """What is said of the image when it is shared once more."""

    view: str = Field(description="what was done to it, such as jpeg:75")
    answer: str
    synthetic: float | None = Field(
        None, description="of a network with sources, see there"
    )
    similarity: float | None = Field(
        None, description="by a gallery, with the most similar generator"
    )


class Answer(BaseModel):
    """What is said of an image, as `rmjax attribute --json` says it."""

    image: str = Field(description="last part of the name that was sent")
    file: list[str] = Field(description="what the file says of its origin, in words")
    provenance: Provenance
    warnings: list[str] = Field(
        description="where the image lies outside of what the network was trained on"
    )
    answer: str = Field(
        description="real, a source, or a generator of the gallery; unknown; inconclusive"
    )
    reason: str = Field(description="for the answer")
    stability: float = Field(
        description="share of the views with the same answer, 0 to 1"
    )
    views: list[View]
    synthetic: float | None = Field(
        None,
        description="of a network with sources: probability of being synthetic, 0 to 1, "
        "were that and being real equally likely before",
    )
    sources: list[tuple[str, float]] | None = Field(
        None,
        description="of a network with sources: each with its probability, best first",
    )
    ranked: list[Similarity] | None = Field(
        None, description="of a network without sources: the nearest generators"
    )
    nearest: list[Similarity] | None = Field(
        None,
        description="of a network with sources, where the server has a gallery: the "
        "nearest enrolled generators",
    )


class Answers(BaseModel):
    """What is said of images."""

    model: Network
    gallery: Gallery | None = Field(None, description="left out where there is none")
    images: list[Answer | Failed] = Field(
        description="in the order that they were sent"
    )


class Fingerprint(BaseModel):
    """The fingerprint of an image."""

    image: str = Field(description="last part of the name that was sent")
    embedding: list[float]


class Fingerprints(BaseModel):
    """Fingerprints of images."""

    model: Network
    layer: str = Field(description="the activation that they are")
    images: list[Fingerprint | Failed] = Field(
        description="in the order that they were sent"
    )


class Map(BaseModel):
    """Where in an image the evidence lies: a grid of cells."""

    method: Literal["tiles", "occlusion"]
    rows: int
    columns: int
    values: list[list[float]] = Field(description="of the cells, row by row")
    box: list[float] = Field(
        description="the part that they cover: left, top, right, bottom in pixels"
    )
    of: str = Field(description="the source or generator that the evidence speaks for")
    unit: str = Field(description="of the values, in words")
    how_to_read: str
    is_not: str = Field(alias="not", description="what may not be concluded")


class Pictures(BaseModel):
    """Spectra as pictures, PNG in data: addresses."""

    image: str
    sources: dict[str, str] = Field(description="by source")


class Spectrum(BaseModel):
    """How strong detail is at each frequency."""

    frequencies: list[float] = Field(description="in cycles per pixel")
    image: list[float] = Field(description="levels in decibels")
    sources: dict[str, list[float]] = Field(description="mean levels, by source")
    pictures: Pictures
    images: dict[str, int] = Field(description="how many a mean is of, by source")
    note: str | None = Field(description="why there are no sources")
    how_to_read: str
    is_not: str = Field(alias="not", description="what may not be concluded")


class Explanation(BaseModel):
    """Why an image is answered as it is."""

    image: str = Field(description="last part of the name that was sent")
    answer: str | None = Field(description="null where there is nothing to name")
    map: Map | None = Field(description="likewise")
    spectrum: Spectrum


class Generator(BaseModel):
    """A generator that is enrolled."""

    name: str
    images: int = Field(description="how many of it are enrolled")
    trained: bool = Field(description="whether the network was trained on it")


class Generators(BaseModel):
    """What is enrolled."""

    generators: list[Generator]


class Enrolled(BaseModel):
    """What was enrolled."""

    generator: str
    enrolled: list[str] = Field(description="names of the images")
    images: int = Field(description="how many of the generator are enrolled by now")
