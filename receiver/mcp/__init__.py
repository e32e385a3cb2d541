"""Tools for agents by the Model Context Protocol: `/mcp` in the service, and `ringback mcp` on stdin and stdout.

The tools are written once, against `ServiceApi`: in the service it calls the application itself, in `ringback mcp` it
sends HTTP requests. The package `mcp` (extra `ringback[mcp]`) is imported by `server.py`, `stdio.py` and
`streamable_http.py` alone, and these only when they are needed: that takes a second.
"""
