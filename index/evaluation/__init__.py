"""A gallery and queries -> metrics with intervals."""
