"""The tests, a package that mirrors prism_wsgi: tests/stores/sql/test_store.py tests prism_wsgi/stores/sql/store.py.

What several folders share (databases, browsers, served sites, proxies, servers of the tests' own) is in support/.
"""
