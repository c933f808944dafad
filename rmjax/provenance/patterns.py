"""What generators write into metadata: the registry, with the source of each pattern.

A pattern is added for what a generator's own code, its makers, a standard or a reader
of such files documents. Editors such as Photoshop or GIMP are no finding.
"""

import re
from dataclasses import dataclass

from rmjax.provenance.fields import Field

# Where programs and services put their name.
_TOOL = (
    *("PNG Software", "EXIF Software", "XMP CreatorTool", "XMP Software"),
    *("XMP Credit", "IPTC Program", "IPTC Credit"),
)
_CAPTION = ("PNG Description", "EXIF ImageDescription", "XMP description")
_READER = "github.com/receyuki/stable-diffusion-prompt-reader"
_FOOOCUS = "github.com/lllyasviel/Fooocus modules/meta_parser.py"
_OWN_NAME = "the name by which it is known"


@dataclass(frozen=True)
class Pattern:
    """`regex` in one of `fields` means `name`; `source` is where that is documented.

    Expressions take time linear in the text: no unbounded repetition inside.
    """

    name: str
    fields: tuple[str, ...]
    regex: str
    source: str
    kind: str = "generator"


# The first pattern that fits a field counts, so those that share a field go from
# particular to general.
PATTERNS = (
    Pattern(
        "SwarmUI",
        ("PNG parameters", "EXIF UserComment", "EXIF Model"),
        r'"sui_image_params"',
        _READER,
    ),
    Pattern("Fooocus", ("PNG fooocus_scheme",), r"^(fooocus|a1111)$", _FOOOCUS),
    Pattern("Fooocus", ("EXIF Software",), r"^Fooocus\b", _FOOOCUS),
    Pattern(
        "Fooocus",
        ("PNG parameters", "EXIF UserComment"),
        r'"(metadata_scheme|version)": ?"(?i:fooocus)',
        _FOOOCUS,
    ),
    Pattern(
        "Easy Diffusion",
        ("PNG use_stable_diffusion_model", "PNG Stable Diffusion model"),
        r".",
        _READER,
    ),
    Pattern(
        "Easy Diffusion",
        ("EXIF UserComment",),
        r'"use_stable_diffusion_model"',
        _READER,
    ),
    Pattern(
        "ComfyUI",
        ("PNG prompt", "PNG workflow", "EXIF UserComment"),
        r'"class_type"|"last_node_id"',
        "github.com/comfyanonymous/ComfyUI nodes.py",
    ),
    Pattern(
        "ComfyUI",
        ("EXIF Make", "EXIF Model", "EXIF ImageDescription"),
        r"(?i)^(prompt|workflow): ?\{",
        "github.com/comfyanonymous/ComfyUI comfy_extras/nodes_images.py",
    ),
    Pattern(
        "Stable Diffusion web UI (AUTOMATIC1111, Forge or one that writes alike)",
        ("PNG parameters", "EXIF UserComment"),
        r"\bSteps: \d{1,5}, [^\n]{0,200}\b(Sampler|Seed|CFG scale): ",
        "github.com/AUTOMATIC1111/stable-diffusion-webui modules/images.py",
    ),
    Pattern(
        "InvokeAI",
        ("PNG invokeai_metadata", "PNG invokeai_graph", "PNG invokeai_workflow"),
        r"\{",
        "github.com/invoke-ai/InvokeAI invokeai/app/api/routers/images.py",
    ),
    Pattern("InvokeAI", ("PNG sd-metadata",), r"\{", _READER),
    Pattern("InvokeAI", ("PNG Dream",), r"-S ?\d", _READER),
    Pattern("NovelAI", _TOOL, r"^NovelAI\b", _READER),
    Pattern("Draw Things", _TOOL, r"^Draw Things\b", _READER),
    Pattern(
        "Midjourney",
        (*_CAPTION, "IPTC Caption"),
        r"\bJob ID: [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b",
        "what exiftool shows of files from midjourney.com",
    ),
    Pattern(
        "Google AI",
        _TOOL,
        r"\b(Made|Edited) with Google AI\b",
        "iptc.org: Google extends AI transparency based on IPTC standards (2024)",
    ),
    Pattern("OpenAI", _TOOL, r"(?i)\b(DALL[-·. ]?E|OpenAI|ChatGPT)\b", _OWN_NAME),
    Pattern("Adobe Firefly", _TOOL, r"\bAdobe[ _]Firefly\b", _OWN_NAME),
    Pattern("Leonardo.Ai", _TOOL, r"(?i)\bLeonardo\.? ?AI\b", _OWN_NAME),
    Pattern("Bing Image Creator", _TOOL, r"\bBing Image Creator\b", _OWN_NAME),
    Pattern("Midjourney", _TOOL, r"(?i)\bMidjourney\b", _OWN_NAME),
    Pattern("Ideogram", _TOOL, r"(?i)^Ideogram\b", _OWN_NAME),
    Pattern("Stable Diffusion", _TOOL, r"(?i)\bStable ?Diffusion\b", _OWN_NAME),
    Pattern("ComfyUI", _TOOL, r"(?i)\bComfyUI\b", _OWN_NAME),
    Pattern("InvokeAI", _TOOL, r"(?i)\bInvoke ?AI\b", _OWN_NAME),
    Pattern(
        "{0}",
        ("XMP DigitalSourceType",),
        r"(?:^|/)(trainedAlgorithmicMedia|compositeWithTrainedAlgorithmicMedia)$",
        "cv.iptc.org/newscodes/digitalsourcetype",
        "ai_generated",
    ),
    Pattern(
        "{0}",
        ("XMP AISystemUsed",),
        r"(\S.{0,80})",
        "IPTC Photo Metadata Standard 2025.1, AI System Used",
    ),
    Pattern(
        "AIGC label {0}",
        ("XMP AIGC",),
        r'"Label": ?"?([123])\b',
        "GB 45438-2025 (1: generated, 2: possibly, 3: suspected)",
        "ai_generated",
    ),
    Pattern(
        "{0}",
        ("EXIF Model", "EXIF Make"),
        r"^(?![\s\S]{0,3}\{)(\S[^\n]{0,80})",
        "CIPA DC-008 (Exif), Make and Model",
        "camera",
    ),
)

FIELD_NAMES = frozenset(name for pattern in PATTERNS for name in pattern.fields)


def match_field(field: Field) -> tuple[str, str] | None:
    """Return kind and name of what a field says about an image's origin, if anything.

    The first of `PATTERNS` that fits.
    """
    for pattern in PATTERNS:
        if field.name in pattern.fields:
            if found := re.search(pattern.regex, field.text):
                return pattern.kind, pattern.name.format(*found.groups())
    return None
