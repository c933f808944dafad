"""Image files with metadata as generators write them, and with C2PA manifests."""

import io
import json
import struct
import zlib

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF")
STEPS = (
    "a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"
)
JOB = "a cat --ar 2:1 Job ID: a7421d2f-b262-44f9-977c-ac23e9c7d3e3"
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def encoded(format: str = "PNG", **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def with_texts(texts: dict[str, str], write="add_text", **options) -> bytes:
    info = PngInfo()
    for key, text in texts.items():
        getattr(info, write)(key, text, **options)
    return encoded(pnginfo=info)


def with_exif(format: str = "JPEG", comment: bytes = b"", **tags) -> bytes:
    exif = Image.Exif()
    numbers = {
        **{"title": 0x10D, "caption": 0x10E},
        **{"make": 0x10F, "model": 0x110, "software": 0x131},
    }
    for name, text in tags.items():
        exif[numbers[name]] = text
    if comment:
        exif.get_ifd(0x8769)[0x9286] = comment
    return encoded(format, exif=exif if format == "TIFF" else exif.tobytes())


def packet(body: str, attributes: str = "") -> bytes:
    return f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:dcterms="http://purl.org/dc/terms/"
 xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"
 xmlns:ext="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/" {attributes}>{body}
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>""".encode()


def with_xmp(body: str, attributes: str = "", format: str = "JPEG") -> bytes:
    return encoded(format, xmp=packet(body, attributes))


def with_caption(text: bytes) -> bytes:
    """A JPEG with an IPTC caption behind another one of Photoshop's resources."""
    dataset = b"\x1c\x02\x78" + struct.pack(">H", len(text)) + text
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(dataset)) + dataset
    content = b"Photoshop 3.0\x008BIM\x03\xed\x02ab\0\0\0\0\x03xyz\0" + resource
    segment = b"\xff\xed" + struct.pack(">H", len(content) + 2) + content
    return b"\xff\xd8" + segment + encoded("JPEG")[2:]


def chunk(name: bytes, content: bytes) -> bytes:
    check = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)


def with_chunk(name: bytes, content: bytes) -> bytes:
    """A PNG with a chunk behind the pixels."""
    return encoded()[:-12] + chunk(name, content) + encoded()[-12:]


def utf16(text: str, order: str) -> bytes:
    return b"UNICODE\0" + text.encode(f"utf-16-{order}")


WEB_UI = "Stable Diffusion web UI (AUTOMATIC1111, Forge or one that writes alike)"
SAMPLES = {
    "web UI, PNG": (
        with_texts({"parameters": STEPS}),
        ("PNG tEXt parameters", "generator", WEB_UI),
    ),
    "web UI, behind the pixels": (
        with_chunk(b"tEXt", b"parameters\0" + STEPS.encode()),
        ("PNG tEXt parameters", "generator", WEB_UI),
    ),
    "web UI, compressed": (
        with_texts({"parameters": STEPS}, zip=True),
        ("PNG zTXt parameters", "generator", WEB_UI),
    ),
    "web UI, Unicode": (
        with_texts({"parameters": STEPS + " ☃"}, "add_itxt", zip=True),
        ("PNG iTXt parameters", "generator", WEB_UI),
    ),
    "web UI, JPEG": (
        with_exif(comment=utf16(STEPS, "be")),
        ("EXIF UserComment", "generator", WEB_UI),
    ),
    "web UI, WebP": (
        with_exif("WEBP", comment=utf16(STEPS, "le")),
        ("EXIF UserComment", "generator", WEB_UI),
    ),
    "web UI, AVIF": (
        with_exif("AVIF", comment=b"ASCII\0\0\0" + STEPS.encode()),
        ("EXIF UserComment", "generator", WEB_UI),
    ),
    "SwarmUI": (
        with_texts({"parameters": json.dumps({"sui_image_params": {"steps": 20}})}),
        ("PNG tEXt parameters", "generator", "SwarmUI"),
    ),
    "RuinedFooocus": (
        with_texts({"parameters": '{"Prompt": "a cat", "software": "RuinedFooocus"}'}),
        ("PNG tEXt parameters", "generator", "RuinedFooocus"),
    ),
    "Fooocus, PNG": (
        with_texts({"fooocus_scheme": "fooocus"}),
        ("PNG tEXt fooocus_scheme", "generator", "Fooocus"),
    ),
    "Fooocus, JPEG": (
        with_exif(software="Fooocus v2.5.5"),
        ("EXIF Software", "generator", "Fooocus"),
    ),
    "Fooocus, JSON": (
        with_exif(comment=b"\0" * 8 + b'{"seed": 1, "version": "Fooocus v2.5.5"}'),
        ("EXIF UserComment", "generator", "Fooocus"),
    ),
    "Easy Diffusion, PNG": (
        with_texts({"use_stable_diffusion_model": "sd-v1-4"}),
        ("PNG tEXt use_stable_diffusion_model", "generator", "Easy Diffusion"),
    ),
    "Easy Diffusion, JPEG": (
        with_exif(comment=utf16('{"use_stable_diffusion_model": "sd-v1-4"}', "be")),
        ("EXIF UserComment", "generator", "Easy Diffusion"),
    ),
    "ComfyUI, PNG": (
        with_texts({"prompt": '{"3": {"class_type": "KSampler"}}'}),
        ("PNG tEXt prompt", "generator", "ComfyUI"),
    ),
    "ComfyUI, WebP": (
        with_exif("WEBP", model='prompt:{"3": {"class_type": "KSampler"}}'),
        ("EXIF Model", "generator", "ComfyUI"),
    ),
    "InvokeAI": (
        with_texts({"invokeai_metadata": '{"app_version": "5.0"}'}),
        ("PNG tEXt invokeai_metadata", "generator", "InvokeAI"),
    ),
    "InvokeAI 2": (
        with_texts({"sd-metadata": '{"image": {}}'}),
        ("PNG tEXt sd-metadata", "generator", "InvokeAI"),
    ),
    "InvokeAI 1": (
        with_texts({"Dream": '"a cat" -s 50 -S 123 -W 512 -H 512 -C 7.5'}),
        ("PNG tEXt Dream", "generator", "InvokeAI"),
    ),
    "NovelAI": (
        with_texts({"Software": "NovelAI", "Comment": '{"uc": "dog"}'}),
        ("PNG tEXt Software", "generator", "NovelAI"),
    ),
    "NovelAI, WebP": (
        with_exif("WEBP", title="NovelAI generated image", caption="a cat"),
        ("EXIF DocumentName", "generator", "NovelAI"),
    ),
    "NovelAI, JSON": (
        with_exif("WEBP", comment=b'{"Comment": "{}", "Software": "NovelAI"}'),
        ("EXIF UserComment", "generator", "NovelAI"),
    ),
    "Draw Things": (
        with_xmp("<xmp:CreatorTool>Draw Things</xmp:CreatorTool>"),
        ("XMP CreatorTool", "generator", "Draw Things"),
    ),
    "Midjourney, PNG": (
        with_texts({"Description": JOB}),
        ("PNG tEXt Description", "generator", "Midjourney"),
    ),
    "Midjourney, XMP": (
        with_xmp(
            "<dc:description><rdf:Alt><rdf:li xml:lang='x-default'>"
            f"{JOB}</rdf:li></rdf:Alt></dc:description>"
        ),
        ("XMP description", "generator", "Midjourney"),
    ),
    "Midjourney, IPTC": (
        with_caption(JOB.encode()),
        ("IPTC Caption", "generator", "Midjourney"),
    ),
    "Google": (
        with_xmp("", 'photoshop:Credit="Edited with Google AI"', "WEBP"),
        ("XMP Credit", "generator", "Google AI"),
    ),
    "stated, made": (
        with_xmp("", f'ext:DigitalSourceType="{SOURCE_TYPE}trainedAlgorithmicMedia"'),
        ("XMP DigitalSourceType", "ai_generated", "trainedAlgorithmicMedia"),
    ),
    "stated, edited, AVIF": (
        with_xmp(
            "<ext:DigitalSourceType rdf:resource="
            f"'{SOURCE_TYPE}compositeWithTrainedAlgorithmicMedia'/>",
            format="AVIF",
        ),
        (
            "XMP DigitalSourceType",
            "ai_generated",
            "compositeWithTrainedAlgorithmicMedia",
        ),
    ),
    "stated, system": (
        with_xmp("<ext:AISystemUsed>Some Model</ext:AISystemUsed>"),
        ("XMP AISystemUsed", "generator", "Some Model"),
    ),
    "stated, China": (
        with_xmp("""<TC260:AIGC>{"Label":"1","ProduceID":"x"}</TC260:AIGC>"""),
        ("XMP AIGC", "ai_generated", "AIGC label 1"),
    ),
    "XMP in PNG": (
        with_texts(
            {"XML:com.adobe.xmp": packet("", 'xmp:CreatorTool="ComfyUI"').decode()}
        ),
        ("XMP CreatorTool", "generator", "ComfyUI"),
    ),
    "ImageMagick's profile": (
        with_texts(
            {
                "Raw profile type xmp": "\nxmp\n    999\n"
                + packet("", 'xmp:CreatorTool="Draw Things"').hex("\n", 36)
            },
            zip=True,
        ),
        ("XMP CreatorTool", "generator", "Draw Things"),
    ),
    "camera": (
        with_exif("TIFF", make="Canon"),
        ("EXIF Make", "camera", "Canon"),
    ),
    "camera, BigTIFF": (
        encoded("TIFF", tiffinfo={271: "Canon"}, big_tiff=True),
        ("EXIF Make", "camera", "Canon"),
    ),
    **{
        f"name {name}": (
            with_exif(software=f"{name} 2.0"),
            ("EXIF Software", "generator", name),
        )
        for name in (
            *("OpenAI", "Adobe Firefly", "Leonardo.Ai", "Bing Image Creator"),
            *("Midjourney", "Ideogram", "Stable Diffusion", "ComfyUI", "InvokeAI"),
        )
    },
}


STORE = b"\0\0\0\x26jumb\0\0\0\x1ejumdc2pa\0\x11\0\x10\x80\0\0\xaa\0\x38\x9bq\x03c2pa\0"


def manifest_in(format: str, store: bytes = STORE) -> bytes:
    """A file with an empty manifest store, laid out by hand after the specification."""
    data = encoded(format)
    if format == "JPEG":
        content = b"JP\0\1\0\0\0\1" + store
        return (
            data[:2]
            + b"\xff\xeb"
            + struct.pack(">H", len(content) + 2)
            + content
            + data[2:]
        )
    if format == "PNG":
        return data[:33] + chunk(b"caBX", store) + data[33:]
    if format == "WEBP":
        body = data[8:] + b"C2PA" + struct.pack("<I", len(store)) + store
        return b"RIFF" + struct.pack("<I", len(body)) + body
    if format == "GIF":
        blocks = b"\x0bC2PA_GIF\1\0\0" + bytes([len(store)]) + store + b"\0"
        at = 13 + 3 * (2 << (data[10] & 7))  # behind the palette
        return data[:at] + b"\x21\xff" + blocks + data[at:]
    if format == "TIFF":
        entry = struct.pack("<HHII", 0xCD41, 7, len(store), 26)
        return b"II*\0\x08\0\0\0\1\0" + entry + bytes(4) + store
    uuid = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
    content = b"uuid" + uuid + bytes(4) + b"manifest\0" + bytes(8) + store
    return data + struct.pack(">I", len(content) + 4) + content
