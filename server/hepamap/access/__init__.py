"""Who may do what, and who did: API keys, bearer tokens of an identity provider, rate limits, the audit trail. Knows no HTTP.

- `scopes`: what a caller may do, and the caller.
- `keys`: API keys, stored as hashes; `tokens`: OIDC bearer tokens.
- `protection`: whether the settings keep the server closed.
- `rates`: how often a caller may ask.
- `audit`: the hash-chained trail of who did what; `recurring`: what is counted there, and not written one by one.
- `tables`: where keys and trail are kept; the migrations of `jobs` create them.
"""
