"""What each command does, apart from the run itself, which is build.run_from()."""
