"""Which of a dataset's columns ``vision`` reads."""

from pipelines.errors import InputError
from pipelines.ingest.manifest import Manifest
from pipelines.ingest.schema import Feature

__all__ = ["classes_of", "find_image"]


def find_image(manifest: Manifest) -> Feature:
    """The column ``image``, or else the only one of rank 3, (height, width, channels).

    Raises:
        InputError: if there is none, or it holds no images to standardise.
    """
    by_name = {feature.name: feature for feature in manifest.features}
    found = [feature for feature in manifest.features if len(feature.shape) == 3]
    image = by_name.get("image") or (found[0] if len(found) == 1 else None)
    if image is None or len(image.shape) != 3 or image.dtype not in ("float32", "uint8"):
        known = ", ".join(f"{feature.name} ({feature.kind})" for feature in manifest.features)
        raise InputError(
            "workload.name: vision takes float32 or uint8 images (height, width, channels) from "
            f"the column 'image' or the only one of rank 3; the dataset has: {known}"
        )
    fitted = manifest.statistics["train"][image.name]
    if _missing(manifest, image.name) or any(
        columns[image.name].not_finite for columns in manifest.statistics.values()
    ):
        raise InputError(
            f"workload.name: vision takes whole images; column '{image.name}' has missing or not "
            "finite ones, leave them out of the source"
        )
    if not fitted.std:
        raise InputError(
            f"workload.name: vision standardises its images; all pixels of column '{image.name}' "
            "are alike in the train split, choose another source"
        )
    return image


def classes_of(manifest: Manifest) -> tuple[str, int]:
    """The label's column and how many classes it has.

    Raises:
        InputError: unless labels are whole numbers from 0 to one less than there are.
    """
    label, classes = manifest.label, manifest.classes
    if label is None:
        raise InputError("workload.name: vision needs a label; name its column in data.label")
    kind = manifest.feature(label).kind
    if kind != "int64" or classes is None:
        many = "" if kind != "int64" else " with too many values to be classes"
        raise InputError(
            f"workload.name: vision takes an int64 label of few values; '{label}' is {kind}{many}"
        )
    if _missing(manifest, label):
        raise InputError(
            f"workload.name: vision takes a label for every image; column '{label}' has missing "
            "ones, leave them out of the source"
        )
    ranges = [columns[label] for columns in manifest.statistics.values()]
    least = min(found.min for found in ranges if found.min is not None)
    most = max(found.max for found in ranges if found.max is not None)
    if least < 0 or most >= classes:
        raise InputError(
            f"workload.name: vision takes labels from 0 to {classes - 1}, one less than there are "
            f"classes; '{label}' has {least:g} to {most:g}, number them anew in the source"
        )
    return label, classes


def _missing(manifest: Manifest, column: str) -> bool:
    return any(columns[column].missing for columns in manifest.statistics.values())
