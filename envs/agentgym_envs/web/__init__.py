"""Tasks on web sites, in a real browser: a site is a class, its pages are served here."""
