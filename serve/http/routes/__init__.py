"""One module a group of routes, and what a route is (`routing`)."""
