"""Session stores: the protocol, and the stores that come with prism_wsgi."""
