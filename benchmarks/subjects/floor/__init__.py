"""The floor: the least code that does a session middleware's work, by hand, on the raw driver.

A signed cookie, an id, msgpack, one prepared statement or script at a time on one held connection. No protection
against any attack, no merging, no retries, no reconnecting: a limit to compare with, nothing to use.
"""
