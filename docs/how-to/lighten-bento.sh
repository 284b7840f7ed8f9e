#!/bin/sh
# Takes out of an installed pyarrow what serving, extraction and search never load: Flight, its own S3
# client, headers and tests; 59 MB. bentofile.yaml runs it once the packages are installed.
set -eu
place=$(python -c 'import pathlib, pyarrow; print(pathlib.Path(pyarrow.__file__).parent)')
rm -rf "$place/include" "$place/tests" "$place/src"
rm -f "$place"/libarrow_flight.so* "$place"/libarrow_python_flight.so* "$place"/_flight*.so
rm -f "$place"/libarrow_s3.so* "$place"/_s3fs*.so
python -c 'import pyarrow.csv, pyarrow.ipc, pyarrow.parquet'
