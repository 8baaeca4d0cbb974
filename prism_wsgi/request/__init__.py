"""One request's life with its session, from the cookie that came to the cookie that is sent; private."""
