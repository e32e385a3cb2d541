"""HTTP/1.1 to servers that are not trusted: connections that are kept, and responses that are read within bounds.

A request is written by one call, and its response is read in callbacks of the event loop: no task and no stream is made
for it. `response_reader` decides what a response is and does no I/O, `connection` is the protocol of a connection,
`dialer` makes connections, and `pool` keeps them. Where bodies may be long, `streamed_exchange` sends and takes them in
parts, and `streamed_reader` says whether a response was read to its end.
"""
