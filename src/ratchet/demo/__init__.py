"""A demonstration: simulated users talk to a gateway over HTTP, then the loop runs as ever."""
