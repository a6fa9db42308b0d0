"""The client for QuPath as one script: its small sources are put together, and told where the server is. Knows no HTTP.

- `sources`: finds and reads the source files, in a checkout or in an installed wheel.
- `assembly`: from sources and a server's address to the script; a pure function.
- `errors`: what can be wrong with them.
"""
