"""What the terms of the upstream data allow to be published."""

from pathlib import Path

from civid_loader import builders
from civid_loader.errors import AnnotationError, LicenseError
from civid_loader.storage import MANIFEST, read_manifest


def check_permission(root: Path, *, is_public: bool, with_videos: bool, has_permission: bool) -> None:
    """Refuse to publish what may not be redistributed.

    Raises:
        AnnotationError: no built dataset.
        LicenseError: the terms do not allow it, and the user has not taken it upon themselves.
    """
    if not (root / MANIFEST).is_file():
        raise AnnotationError(f"{root}: no {MANIFEST}, so no built dataset; make one with `civid build`")
    terms = builders.find(read_manifest(root)["name"]).TERMS
    if terms.may_redistribute or has_permission or not (is_public or with_videos):
        return
    what = " and ".join(
        part for part, is_asked in (("a public repository", is_public), ("uploading videos", with_videos)) if is_asked
    )
    raise LicenseError(
        f"the terms of the data ({terms.license}) do not allow {what}:\n  {terms.text}\nWithout them the annotations "
        "go to a private repository. If the authors gave you their permission, take it upon yourself with "
        "--i-have-permission (has_permission=True)"
    )
