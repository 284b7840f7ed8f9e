"""embeddings -> gallery: search with variance scores, and evaluation.

FAISS's libraries read two variables when they are loaded, which only this module comes before. A
variable that is set already is left alone. Its OpenMP threads spin while they wait unless told otherwise: on two
shared cores, waiting asleep made a test run of index builds and searches 4 times faster. Its
OpenBLAS does not know newer CPUs (index.search.blas).
"""

import os

from index.search.blas import best_kernels, cpu_flags

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if (name := best_kernels(cpu_flags())) is not None:
    os.environ.setdefault("OPENBLAS_CORETYPE", name)
del name
