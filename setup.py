"""Map the top-level rooms of this repository into the one installed package ``has_dali``.

``kernels/`` is installed as ``has_dali.kernels`` and so on, so that nothing but ``has_dali`` lands in
site-packages. Code always imports ``has_dali.kernels...``, never ``kernels...``.
"""

from setuptools import find_packages, setup

ROOMS = ("kernels", "pipelines", "trainers", "bench")

packages = ["has_dali", *(f"has_dali.{name}" for name in find_packages("has_dali"))]
package_dir = {"has_dali": "has_dali"}
for room in ROOMS:
    package_dir[f"has_dali.{room}"] = room
    packages += [f"has_dali.{room}", *(f"has_dali.{room}.{name}" for name in find_packages(room))]

setup(packages=packages, package_dir=package_dir)
