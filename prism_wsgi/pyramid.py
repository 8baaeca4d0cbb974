"""Pyramid: `config.include("prism_wsgi.pyramid")`; see `prism_wsgi.integrations.pyramid`."""

if __name__ == "pyramid":
    raise ImportError("This is prism_wsgi's own directory, and it must not be on sys.path: start Python elsewhere")

from prism_wsgi.integrations.pyramid import includeme

__all__ = ["includeme"]
