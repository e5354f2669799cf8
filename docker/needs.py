"""Write what pyproject.toml asks for as files for pip: one for each extra, base.txt, build.txt.

So an image has its dependencies in layers of their own, which a change of the source leaves alone;
and torch, by far the largest, in one that only another release of torch makes anew: torch.txt.
"""

import sys
import tomllib
from pathlib import Path

here, there = Path(sys.argv[1]), Path(sys.argv[2])
asked = tomllib.loads((here / "pyproject.toml").read_text())
project = asked["project"]
needs = {
    "base": project["dependencies"],
    "build": asked["build-system"]["requires"],
    **project["optional-dependencies"],
}
pins = (here / "constraints.txt").read_text().splitlines()
needs = {  # an extra may hold another one
    name: [need for need in lines if not need.startswith("mnist37[")]
    for name, lines in needs.items()
}
needs["torch"] = [pin for pin in pins if pin.startswith(("torch==", "torchvision=="))]
there.mkdir(exist_ok=True)
for name, lines in needs.items():
    (there / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
