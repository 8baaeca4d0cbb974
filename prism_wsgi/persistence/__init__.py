"""The layers between a session and its store: identity, lifetimes, document, encryption, merge; private."""
