"""The model card of a run: what it is, its figures and limits, and what the Hub reads."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax

from rmjax.evaluation.results import SETS, subset_words
from rmjax.inference.attributor import Attributor
from rmjax.report.view import interval, subsets, words
from rmjax.utils.templates import package_environment
from rmjax.utils.versions import own_version

# Figures of the card: their names, and what the Hub calls metrics of their kind.
METRICS = {
    "attribution_accuracy": ("attribution accuracy", "accuracy"),
    "detection_accuracy": ("detection accuracy", "accuracy"),
    "macro_f1": ("macro F1", "f1"),
}


def write_card(
    model: Attributor, evaluations: Sequence[dict], repo: str, license: str | None
) -> str:
    """Return a model card in Markdown, with metadata for the Hub.

    Args:
        model: the run.
        evaluations: its results, see `rmjax.evaluation.results`.
        repo: `owner/name` of the repository.
        license: of the weights, by its name on the Hub; None where it is not known.
    """
    environment = package_environment("rmjax.hub", autoescape=False)  # Markdown
    environment.filters["cell"] = lambda text: text.replace("|", "\\|")
    return environment.get_template("card.md.jinja").render(
        metadata=_metadata(model, evaluations, repo, license),
        model=model,
        config=model.config,
        images=model.image_config,
        fingerprints=model.layer == "embedding",
        repo=repo,
        parameters=sum(
            leaf.size for leaf in jax.tree.leaves(model.variables["params"])
        ),
        version=own_version(),
        figures=[
            {
                "evaluation": results["evaluation"]["name"],
                "data": f"{results['data']['name']}, {results['evaluation']['split']}",
                "subset": subset_words(subset),
                "conditions": words(conditions),
            }
            | {metric: interval(means, metric) for metric in METRICS}
            for results in evaluations
            for subset, conditions, means in _means(results)
        ],
    )


def _means(results: dict) -> Iterator[tuple[str, str, dict]]:
    """Yield each subset of images with each set of conditions, and their figures."""
    for subset in subsets(results):
        for conditions in SETS:
            if conditions in results["summary"][subset]:
                yield subset, conditions, results["summary"][subset][conditions]


def _metadata(
    model: Attributor, evaluations: Sequence[dict], repo: str, license: str | None
) -> str:
    """Return the metadata as YAML, as https://huggingface.co/docs/hub/model-cards."""
    from huggingface_hub import EvalResult, ModelCardData

    task = "image-classification" if model.source_names else "image-feature-extraction"

    def measured(results: dict, where: str, metric: str, means: dict) -> Any:
        name, kind = METRICS[metric]
        ends = [means[f"{metric}_low"], means[f"{metric}_high"]]
        return EvalResult(
            task_type=task,
            dataset_type=results["data"]["name"],
            dataset_name=f"{results['data']['name']}, {where}",
            dataset_config=where,
            dataset_split=results["evaluation"]["split"],
            metric_type=kind,
            metric_name=name,
            metric_value=means[metric],
            metric_args={"interval_95": ends} if None not in ends else None,
        )

    found: dict[tuple, Any] = {}  # the same figure may be in several evaluations
    for results in evaluations:
        for subset, conditions, means in _means(results):
            where = f"{subset_words(subset)}, {words(conditions)}"
            for metric in METRICS:
                if means[metric] is not None:
                    entry = measured(results, where, metric, means)
                    found.setdefault((entry.unique_identifier, metric), entry)
    return ModelCardData(
        model_name=repo.split("/")[1],
        library_name="rmjax",
        pipeline_tag=task,
        tags=["rmjax", "jax", "image-attribution", "synthetic-image-detection"],
        license=license,
        eval_results=[*found.values()] or None,
    ).to_yaml()
