"""HTTP for people: pages in a browser, made on the server from what the API answers (`README.md`)."""
