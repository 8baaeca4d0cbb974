"""Sessions that other packages stored: how each is read, never by unpickling, and how they are imported."""
