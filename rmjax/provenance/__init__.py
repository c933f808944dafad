"""What an image file says about where it came from: C2PA manifest and metadata.

Not found is evidence of nothing: most services strip metadata, a screenshot has none,
and few generators write any. Found is a claim, not a proof: metadata can be written by
anybody, copied from another file or left over from an image that was edited since. Only
a C2PA manifest is signed, and without a list of trusted signers (none is used here,
because nothing is fetched from the network) its validation says that the file is
unchanged since somebody signed it, not who that was.

Pixels are never decoded.
"""

from dataclasses import dataclass

from rmjax.provenance.fields import REMOTE, read_fields
from rmjax.provenance.manifest import C2pa, judge_manifest
from rmjax.provenance.patterns import match_field
from rmjax.provenance.text import printable

CAVEAT = (
    "Not found is evidence of nothing: metadata are lost in most resharing. "
    "Found is a claim: metadata can be forged or copied from another image."
)


@dataclass(frozen=True)
class Finding:
    """One thing that the metadata say about the image's origin.

    Attributes:
        where: block and field, such as `PNG tEXt parameters` or `EXIF Software`.
        value: beginning of the field's text, at most `text.MAX_SHOWN` characters,
            printable.
        kind: `generator` (a program or service that makes images is named, or its
            own fields are there), `ai_generated` (the metadata state that a
            generative model made the image or parts of it), or `camera` (a camera
            or scanner is named).
        name: the generator, the statement (such as `trainedAlgorithmicMedia`) or the
            camera.
    """

    where: str
    value: str
    kind: str
    name: str


@dataclass(frozen=True)
class Provenance:
    """What `find_provenance` found; `dataclasses.asdict` makes it JSON-able.

    Attributes:
        c2pa: the embedded C2PA manifest, `c2pa.found` False if there is none.
        metadata: the findings in the other metadata, in the order of the file; empty
            if nothing of `patterns.PATTERNS` was found.
        caveat: what may not be concluded from either.
    """

    c2pa: C2pa
    metadata: tuple[Finding, ...]
    caveat: str = CAVEAT


def find_provenance(data: bytes) -> Provenance:
    """Look for a C2PA manifest and for metadata of generators in an image file.

    The formats of `rmjax.data.images.FORMATS` that can carry such data (JPEG, PNG,
    WebP, GIF, TIFF, AVIF, JPEG 2000), and HEIC. Time and memory are linear in the size
    of the file, and nothing is fetched from the network. What is damaged, cut off or
    of another format counts as not found; nothing is raised.

    Args:
        data: the encoded file.
    """
    findings: dict[tuple[str, str], Finding] = {}
    remote = None
    for field in read_fields(data):
        if field.name == REMOTE and field.text.startswith("http"):
            remote = remote or printable(field.text)
        if said := match_field(field.name, field.text):
            kind, name = said
            finding = Finding(field.where, printable(field.text), kind, printable(name))
            findings.setdefault((finding.where, finding.name), finding)
    return Provenance(judge_manifest(data, remote), tuple(findings.values()))


def describe(provenance: Provenance) -> list[str]:
    """Say in lines of plain text, for a terminal, what was found and what not."""
    c2pa = provenance.c2pa
    if c2pa.found:
        details = [
            f"by {c2pa.claim_generator}" if c2pa.claim_generator else "",
            f"title {c2pa.title}" if c2pa.title else "",
            f"signed by {c2pa.signer}" if c2pa.signer else "",
            f"states {c2pa.ai_generated}" if c2pa.ai_generated else "",
            f"validation: {c2pa.validation}",
            f"failed: {', '.join(c2pa.failures)}" if c2pa.failures else "",
        ]
        lines = [
            f"C2PA manifest: found ({c2pa.where}); " + "; ".join(filter(None, details))
        ]
    else:
        lines = ["C2PA manifest: not found in the file"]
    if c2pa.remote:
        lines.append(f"C2PA manifest elsewhere, not fetched: {c2pa.remote}")
    for finding in provenance.metadata:
        lines.append(
            f"{finding.kind}: {finding.name} ({finding.where}: {finding.value})"
        )
    if not provenance.metadata:
        lines.append("Metadata of generators or cameras: not found")
    return [*lines, provenance.caveat]
