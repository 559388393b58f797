"""HTTP/1.1 with true instants: aiohttp, and a lean transport of our own."""
