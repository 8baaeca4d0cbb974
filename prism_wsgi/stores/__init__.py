"""Session stores: the protocol, and the ones that come with prism_wsgi."""
