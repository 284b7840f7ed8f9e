"""What `benchmarks/serve.py` measures with: models, peers' servers, a load generator."""
