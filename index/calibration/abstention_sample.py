"""Labelled images that searched their own gallery, with the outcomes <-> a file that later processes read.

The searches take seconds, and thresholds for any risk come from them in no time. The file says of which state of
the gallery and of which constants it is; what does not fit, or is damaged, is passed over and made again.
Shape letters: n images that search, K neighbours.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from index.arrays import Bools
from index.calibration.abstention import AbstentionInputs
from vssl.files import write_bytes

FORMAT = 1


@dataclass(frozen=True, eq=False)
class AbstentionSample:
    """What n images found, and which of their nearest neighbours were `wrong` (n,).

    rows, last_row: the state of the gallery that they searched; constants: of its distance.
    """

    inputs: AbstentionInputs
    wrong: Bools
    rows: int
    last_row: int
    constants: str

    def save(self, path: Path) -> None:
        """Write the file; raises OSError where that is not possible."""
        sink = io.BytesIO()
        inputs = self.inputs
        np.savez(
            sink,
            uncertainty=inputs.uncertainty,
            distance=inputs.distance,
            agree=inputs.agree,
            wrong=self.wrong,
            state=np.array([FORMAT, self.rows, self.last_row]),
            constants=np.array(self.constants),
        )
        path.parent.mkdir(exist_ok=True)
        write_bytes(path, sink.getvalue())

    @classmethod
    def load(cls, path: Path) -> AbstentionSample | None:
        """Read a file; None where there is none that is whole, as its checksums tell."""
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                version, rows, last_row = (int(number) for number in file["state"])
                inputs = AbstentionInputs(file["uncertainty"], file["distance"], file["agree"])
                read = cls(inputs, file["wrong"], rows, last_row, str(file["constants"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return read if version == FORMAT else None
