"""What stands around every route: keys, CORS, request ids, the access log."""
