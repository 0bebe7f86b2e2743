"""The artifact without demonstrations beside the teacher with them: per query, on the same queries."""
