"""The large libraries, imported before the code that jaxtyping's import hook instruments.

While an instrumented module is imported, the hook keeps the bytecode of everything that it imports apart. Imported from
there, these libraries would be compiled once more: 2,500 files in each test process, for some 10 seconds.
"""

import os
import signal
from importlib import import_module

signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background ignores it, as would what it starts
os.environ.setdefault("OMP_NUM_THREADS", "1")  # processes of tests, and those that they start, run beside each other

LIBRARIES = [
    import_module(name)
    for name in (
        "torchvision",
        "transformers.models.mask2former.modeling_mask2former",
        "transformers.models.eomt.modeling_eomt",
        "transformers.models.rf_detr.modeling_rf_detr",
        "open_clip",
        "peft",
        "ray.data",
        "ray.train.torch",
        "scipy.optimize",
        "matplotlib.figure",
        "numba",
        "pandas",
    )
]
