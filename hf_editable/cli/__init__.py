"""The command `hf-editable`: `main` finds a command, `commands` has one file each, `shared` what several need."""
