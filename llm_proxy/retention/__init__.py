"""What ends the keeping of content: retention by days, legal holds, and the export before it."""
