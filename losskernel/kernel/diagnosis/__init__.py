"""May a kernel be trusted? Verdict, screens, remedies."""
