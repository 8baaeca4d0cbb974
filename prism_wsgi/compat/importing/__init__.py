"""The import of sessions that other packages stored, without ever unpickling them."""
