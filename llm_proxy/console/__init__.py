"""`/console`: what `/admin` and the command line tell, as pages for people; it can do nothing more."""
