"""What generators write into metadata: the registry, with the source of each pattern.

A pattern is added for what a generator's own code, its makers, a standard or a reader
of such files documents. Editors such as Photoshop or GIMP are no finding.
"""

import re
from dataclasses import dataclass

# Where programs and services put their name.
_TOOL = (
    *("PNG Software", "EXIF Software", "XMP CreatorTool", "XMP Software"),
    *("XMP Credit", "IPTC Program", "IPTC Credit"),
)
_CAPTION = ("PNG Description", "EXIF ImageDescription", "XMP description")
# Where free text is put, what would be a text of its own in PNG among it.
_TEXT = (
    *("PNG parameters", "PNG Comment", "PNG UserComment", "EXIF UserComment"),
    *("EXIF XPComment", "XMP UserComment", *_CAPTION, "IPTC Caption", "comment"),
)
_GRAPH = ("EXIF Make", "EXIF Model", "EXIF ImageDescription")
_INVOKE = ("PNG invokeai_metadata", "PNG invokeai_graph", "PNG invokeai_workflow")
_EASY = ("PNG use_stable_diffusion_model", "PNG Stable Diffusion model")
_WEB_UI = "Stable Diffusion web UI (AUTOMATIC1111, Forge or one that writes alike)"

_READER = "github.com/receyuki/stable-diffusion-prompt-reader"
_FOOOCUS = "github.com/lllyasviel/Fooocus modules/meta_parser.py"
_RUINED = "github.com/runew0lf/RuinedFooocus"
_NODES = "github.com/comfyanonymous/ComfyUI nodes.py"
_ANIMATIONS = "github.com/comfyanonymous/ComfyUI comfy_extras/nodes_images.py"
_IMAGES = "github.com/AUTOMATIC1111/stable-diffusion-webui modules/images.py"
_ROUTERS = "github.com/invoke-ai/InvokeAI invokeai/app/api/routers/images.py"
_NOVELAI = "github.com/enslo/sd-metadata (of WebP by NovelAI)"
_MIDJOURNEY = "what exiftool shows of files from midjourney.com"
_GOOGLE = "iptc.org: Google extends AI transparency based on IPTC standards (2024)"
_OWN_NAME = "the name by which it is known"
_SOURCE_TYPE = "cv.iptc.org/newscodes/digitalsourcetype"
_SYSTEM = "IPTC Photo Metadata Standard 2025.1, AI System Used"
_AIGC = "GB 45438-2025 (1: generated, 2: possibly, 3: suspected)"
_CIPA = "CIPA DC-008 (Exif), Make and Model"


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


_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_STEPS = r"\bSteps: \d{1,5}, [^\n]{0,200}\b(Sampler|Seed|CFG scale): "
_TRAINED = r"(?i)(?:^|[/:])((?:compositeWith)?trainedAlgorithmicMedia)/?$"

# The first pattern that fits a field counts, so those that share a field go from
# particular to general.
PATTERNS = (
    Pattern("SwarmUI", (*_TEXT, "EXIF Model"), r'"sui_image_params"', _READER),
    Pattern("RuinedFooocus", _TEXT, r'"software": ?"RuinedFooocus"', _RUINED),
    Pattern("Fooocus", ("PNG fooocus_scheme",), r"^(fooocus|a1111)$", _FOOOCUS),
    Pattern("Fooocus", ("EXIF Software",), r"^Fooocus\b", _FOOOCUS),
    Pattern("Fooocus", _TEXT, r'"(metadata_scheme|version)": ?"(?i:fooocus)', _FOOOCUS),
    Pattern("Easy Diffusion", _EASY, r".", _READER),
    Pattern("Easy Diffusion", _TEXT, r'"use_stable_diffusion_model"', _READER),
    Pattern(
        "ComfyUI",
        ("PNG prompt", "PNG workflow", *_TEXT),
        r'"class_type"|"last_node_id"',
        _NODES,
    ),
    Pattern("ComfyUI", _GRAPH, r"(?i)^(prompt|workflow): ?\{", _ANIMATIONS),
    Pattern(_WEB_UI, _TEXT, _STEPS, _IMAGES),
    Pattern("InvokeAI", _INVOKE, r"\{", _ROUTERS),
    Pattern("InvokeAI", ("PNG sd-metadata",), r"\{", _READER),
    Pattern("InvokeAI", ("PNG Dream",), r"-S ?\d", _READER),
    Pattern("NovelAI", _TOOL, r"^NovelAI\b", _READER),
    Pattern("NovelAI", ("EXIF DocumentName",), r"^NovelAI generated image", _NOVELAI),
    Pattern("NovelAI", _TEXT, r'"Software": ?"NovelAI"', _NOVELAI),
    Pattern("Draw Things", _TOOL, r"^Draw Things\b", _READER),
    Pattern("Midjourney", _TEXT, rf"\bJob ID: {_UUID}\b", _MIDJOURNEY),
    Pattern("Google AI", _TOOL, r"\b(Made|Edited) with Google AI\b", _GOOGLE),
    Pattern("OpenAI", _TOOL, r"(?i)\b(DALL[-·. ]?E|OpenAI|ChatGPT)\b", _OWN_NAME),
    Pattern("Adobe Firefly", _TOOL, r"\bAdobe[ _]Firefly\b", _OWN_NAME),
    Pattern("Leonardo.Ai", _TOOL, r"(?i)\bLeonardo\.? ?AI\b", _OWN_NAME),
    Pattern("Bing Image Creator", _TOOL, r"\bBing Image Creator\b", _OWN_NAME),
    Pattern("Midjourney", _TOOL, r"(?i)\bMidjourney\b", _OWN_NAME),
    Pattern("Ideogram", _TOOL, r"(?i)^Ideogram\b", _OWN_NAME),
    Pattern("Stable Diffusion", _TOOL, r"(?i)\bStable ?Diffusion\b", _OWN_NAME),
    Pattern("ComfyUI", _TOOL, r"(?i)\bComfyUI\b", _OWN_NAME),
    Pattern("InvokeAI", _TOOL, r"(?i)\bInvoke ?AI\b", _OWN_NAME),
    Pattern("{0}", ("XMP DigitalSourceType",), _TRAINED, _SOURCE_TYPE, "ai_generated"),
    Pattern("{0}", ("XMP AISystemUsed",), r"(\S.{0,80})", _SYSTEM),
    Pattern(
        "AIGC label {0}",
        ("XMP AIGC",),
        r'"Label": ?"?([123])\b',
        _AIGC,
        "ai_generated",
    ),
    Pattern("{0}", _GRAPH[:2], r"^(?!.{0,3}\{)([!-~][^\n]{0,80})", _CIPA, "camera"),
)

FIELD_NAMES = frozenset(name for pattern in PATTERNS for name in pattern.fields)


def match_field(field: str, text: str) -> tuple[str, str] | None:
    """Return kind and name of what a field's text says about an image's origin, if any.

    By the first of `PATTERNS` that fits.
    """
    for pattern in PATTERNS:
        if field in pattern.fields and (match := re.search(pattern.regex, text)):
            return pattern.kind, pattern.name.format(*match.groups())
    return None
