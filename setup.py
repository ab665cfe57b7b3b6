"""Says where the files of a wheel go; pyproject.toml says everything else.

At the top level of site-packages, `run` and `flags` would be in the way of other packages' modules.
A wheel therefore has run.py and flags/ in simclr_tf/program/, from which simclr_tf/__main__.py runs
them.
"""

import setuptools

_PROGRAM = "simclr_tf.program"

setuptools.setup(
    packages=[
        *setuptools.find_packages(include=["simclr_tf", "simclr_tf.*"]),
        f"{_PROGRAM}.flags",
    ],
    py_modules=[f"{_PROGRAM}.run"],
    package_dir={_PROGRAM: ".", f"{_PROGRAM}.flags": "flags"},
    package_data={
        f"{_PROGRAM}.flags": [
            *("recipes/*.flags", "presets/*.flags", "studies/*.flags", "studies/*.toml"),
        ],
        "simclr_tf.report": ["templates/*"],
        "simclr_tf.serving": ["templates/*"],
    },
)
