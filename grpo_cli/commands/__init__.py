"""One thin module per subcommand of `r1zero`."""
