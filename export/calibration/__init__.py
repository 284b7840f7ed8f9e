"""Frozen encoder + unlabelled images -> a variance that is checked, and the maps served with it."""
