"""One run: train, sample, analyse, track."""
