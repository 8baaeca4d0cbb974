"""`prism-wsgi demo`: a small site to click through."""
