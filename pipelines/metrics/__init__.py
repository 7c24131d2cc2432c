"""Official evaluation protocols, exact to the last digits that they print."""
