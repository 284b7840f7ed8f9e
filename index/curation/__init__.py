"""A gallery -> what a person should look at."""
