"""Stored images -> random views, a whole batch at once on any device."""
