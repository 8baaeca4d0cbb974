"""The sweeper at scale: millions of sessions, a live load, and several ways to delete what has expired."""
