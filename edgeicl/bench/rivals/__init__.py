"""What a user would run instead of an artifact, one file per rival, each in an environment of its own."""
