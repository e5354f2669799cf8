"""Write the requirements in pyproject.toml to files for pip, one for each layer of an image.

There is one file for each extra, and base.txt, build.txt and torch.txt. The layers with the
dependencies do not depend on the source, so a change of the source does not rebuild them. torch, by
far the largest, has its own layer, which only another release of torch rebuilds.

needs.py SOURCE TARGET     folders: of pyproject.toml and constraints.txt, and of the files to write
"""

import sys
import tomllib
from pathlib import Path

source, target = Path(sys.argv[1]), Path(sys.argv[2])
pyproject = tomllib.loads((source / "pyproject.toml").read_text())
project = pyproject["project"]
requirements = {
    "base": project["dependencies"],
    "build": pyproject["build-system"]["requires"],
    **project["optional-dependencies"],
}
pins = (source / "constraints.txt").read_text().splitlines()
requirements = {  # an extra can include another extra, mnist37[...], which has its own file
    name: [line for line in lines if not line.startswith("mnist37[")]
    for name, lines in requirements.items()
}
requirements["torch"] = [pin for pin in pins if pin.startswith(("torch==", "torchvision=="))]
target.mkdir(exist_ok=True)
for name, lines in requirements.items():
    (target / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
