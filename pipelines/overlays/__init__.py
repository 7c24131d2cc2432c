"""Pictures for people: masks drawn over frames, contact sheets."""
