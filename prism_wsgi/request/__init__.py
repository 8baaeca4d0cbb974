"""One request with its session, from the cookie received to the cookie sent; private."""
