"""Write requirements/*.txt from what is installed here: the locked versions of `make demo` and `make test`.

Run by `make lock`, after the dependencies in pyproject.toml were changed and installed. Local version parts are
dropped: `torch 2.13.0+cpu` is locked as `torch==2.13.0`, which every index has.
"""

import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
# The extras whose features exist and are tested.
TESTED = ("train", "hub", "serve", "cluster", "export", "video", "baselines")
ALWAYS = ["setuptools"]  # builds the editable install without downloading anything


def closure(requirements: list[str]) -> dict[str, str]:
    """Every distribution that the requirements need, with its installed version."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), ("",)) for text in requirements]
    while waiting:
        requirement, asked = waiting.pop()  # asked: the extras that were wanted of whoever needs it
        if requirement.marker is not None and not any(requirement.marker.evaluate({"extra": e}) for e in asked):
            continue
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        extras = {(name, extra) for extra in ("", *requirement.extras)}
        if extras <= seen:
            continue
        seen |= extras
        installed = distribution(name)
        found[name] = installed.version.split("+")[0]
        wanted = tuple(extra for _, extra in extras)
        waiting += [(Requirement(text), wanted) for text in installed.requires or []]
    return found


def main() -> None:
    """Write the two files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    core = [*project["project"]["dependencies"], *ALWAYS]
    extras = [text for name in TESTED for text in project["project"]["optional-dependencies"][name]]
    development = [*core, *extras, *project["dependency-groups"]["dev"]]
    for name, requirements in (("core", core), ("dev", development)):
        lines = [f"{package}=={version}" for package, version in sorted(closure(requirements).items())]
        header = f"# Locked versions for `make {'demo' if name == 'core' else 'test'}`; written by `make lock`.\n"
        (ROOT / "requirements" / f"{name}.txt").write_text(header + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
