"""A complete embeddings folder -> the same in clip-retrieval's layout: plain arrays for other tools.

    img_emb/img_emb_00000.npy        means (N, D)
    img_var/img_var_00000.npy        variances (N, D)
    metadata/metadata_00000.parquet  image_path, id, label, uncertainty

One file of each per part that has rows, zero-padded, so that autofaiss reads the means in order.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from vssl.embeddings import store
from vssl.files import atomic_write


def write_arrays(out: Path, dtype: str = "float32") -> None:
    """Write the arrays of every part; files are renamed into place whole."""
    for name in ("img_emb", "img_var", "metadata"):
        (out / name).mkdir(exist_ok=True)
    for number, (rows, _, _) in enumerate(store.iter_parts(out)):
        if not len(rows):
            continue
        for name, values in (("img_emb", rows.gaussians.mean), ("img_var", rows.gaussians.variance)):
            path = out / name / f"{name}_{number:05d}.npy"
            with atomic_write(path) as file:
                np.save(file, values.astype(dtype))
        columns = {
            "image_path": rows.paths,
            "id": rows.ids,
            "label": pa.array(rows.labels, pa.string()),
            "uncertainty": rows.gaussians.uncertainty,
        }
        store.write_table(pa.table(columns), out / "metadata" / f"metadata_{number:05d}.parquet")
