"""The contract that train, export, serve and index share: values, formats, errors."""

__version__ = "0.1.0"
