"""How good a run's features are, while it trains and afterwards."""
