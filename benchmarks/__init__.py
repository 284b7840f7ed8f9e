"""Figures of this project and of its peers: `python -m benchmarks.NAME --help`."""

import index  # noqa: F401  (before any FAISS: it chooses the kernels that FAISS multiplies with)
