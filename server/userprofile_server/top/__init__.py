"""`userprofile-server top`: what the metrics of a running server say, in a terminal."""
