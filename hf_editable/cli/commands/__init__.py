"""The commands, one file each, with a `main(argv)`."""
