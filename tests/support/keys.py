"""The keys of every site in the tests: strong enough that nothing warns of them."""

SECRET = "0123456789abcdef0123456789abcdef-for-tests"
OTHER_SECRET = "another-9876543210-zyxwvutsrqponmlkjihg"
ENCRYPTION_KEY = "encryption 0123456789abcdef01234567"
