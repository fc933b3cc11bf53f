"""The golden matrix: situations in every caller's dialect, answered by a vendor of every dialect."""
