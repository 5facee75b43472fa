"""The graph of a bundle at work, by ONNX Runtime."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.bundle import OUTPUTS, Bundle, in_graph
from schemas.errors import EnvironmentFault

Columns = dict[str, NDArray[Any]]


def required(name: str, extra: str = "export") -> ModuleType:
    """A package of an extra.

    Raises:
        EnvironmentFault: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError:
        raise EnvironmentFault(
            "Exporting, and scoring with what was exported, need further packages."
            if extra == "export"
            else "Serving scores needs further packages.",
            expected=f"the package {name}",
            got="not installed",
            do=f"pip install 'tinprep[{extra}]'",
        ) from None


class Graph:
    """A bundle's model.

    One thread is the fastest for requests of hundreds of candidates.

    Raises:
        EnvironmentFault: ONNX Runtime is not installed.
    """

    def __init__(self, made: Bundle, model: Path, threads: int = 1) -> None:
        self.bundle = made
        self.inputs = {one.name: one for one in made.inputs}
        runtime = required("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        self.session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def score(self, columns: Columns) -> NDArray[np.float32]:
        """Give the logit and the probability of each row, 2 x B.

        Args:
            columns: of the bundle's `inputs`, each as its `type` and `sides` say: in a request
                those of the history have one row.
        """
        named = {in_graph(name): column for name, column in columns.items()}
        return np.stack(self.session.run(OUTPUTS, named))
