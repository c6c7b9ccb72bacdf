"""Pages for people: each one HTML file that needs no server, no network and no other file."""
