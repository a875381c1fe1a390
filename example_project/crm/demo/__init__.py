"""What ``manage.py demo`` fills the site with, says of it, and plays on it."""
