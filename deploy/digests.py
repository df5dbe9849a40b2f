"""Digests: pin every image of the Dockerfile and the compose file to what its tag names in the registry today.

`make digests` runs this file where Docker and the registry can be reached. It changes the digests in both files, and
leaves the tags alone: to move to a newer image, change the tag first.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = (ROOT / "Dockerfile", ROOT / "docker-compose.yml")
IMAGE = re.compile(r"^(\s*(?:FROM|image:) )([^\s@]+:[^\s@]+)@(sha256:[0-9a-f]{64})", re.MULTILINE)
"""Line of an image: the words before the name, the name with its tag, and the digest."""


def main() -> None:
    """Pin the images of both files, and print each digest."""
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        try:
            pinned = pin(text, ask_registry)
        except (OSError, subprocess.CalledProcessError) as exc:
            reason = str(getattr(exc, "stderr", "") or exc).strip().splitlines()[0]
            sys.exit(f"Docker cannot ask the registry, so {file.name} stays as it is: {reason}")
        file.write_text(pinned, encoding="utf-8")
        for _, image, digest in IMAGE.findall(pinned):
            print(f"{file.name}: {image} {digest}")


def pin(text: str, digest_of: Callable[[str], str]) -> str:
    """Return a file's text with the digests that a registry gives.

    Args:
        text: Text of a Dockerfile or a compose file.
        digest_of: Returns the digest of an image with a tag.
    """
    return IMAGE.sub(lambda line: f"{line[1]}{line[2]}@{digest_of(line[2])}", text)


def ask_registry(image: str) -> str:
    """Return the digest that the registry has for an image with a tag: that of the index over all processors.

    Raises:
        OSError: There is no Docker.
        subprocess.CalledProcessError: Docker or the registry refuses.
    """
    command = ["docker", "buildx", "imagetools", "inspect", image, "--format", "{{.Manifest.Digest}}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
