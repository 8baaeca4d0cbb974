"""`prism-wsgi demo`: a small shop that shows what its sessions do."""
