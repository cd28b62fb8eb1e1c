"""Looking at episodes in a browser: a server, or one HTML file that needs none."""
