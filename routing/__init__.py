"""Where does this call go next? Pure: no I/O, no HTTP; clock and randomness are passed in."""
