"""Review of an archive by people: a page that shows tracks, and the server that it talks to."""
