"""Benchmarks: what prism_wsgi adds to a request, compared with the floor and with other packages; see README.md."""
