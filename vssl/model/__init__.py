"""What an exported model carries with it: card, golden pair, seal and identity."""
